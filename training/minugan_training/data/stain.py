"""The stains of a data set's slides, and what of them goes onto a model's card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry
from minugan_training.data.labels import IGNORE, load_sample
from wsi_minugan.config import PATCH_PX
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import evenly
from wsi_minugan.minugan.card import StainNormalisation
from wsi_minugan.minugan.ink import ink_in
from wsi_minugan.minugan.stain import (
    TISSUE_DENSITY,
    StainMap,
    StainStatistics,
    map_between,
    optical_density,
    slide_stain,
)

Slide = tuple[str, str]
"""Patient and scanner: what has one stain."""
Method = Literal["mean and spread", "macenko"]
_PATCHES = 64
_LEAST_PATCHES = 8
"""Fewer say little of a slide."""
_ANGLE_PERCENT = 1.0
_STRONG_PERCENT = 99.0
_WHITE = 255
_MARGIN = 0.1
"""By so much of its width the range is wider on each side: without it four of nine slides of other patients lay outside."""
_LEAST = 0.001


def by_slide(entries: Iterable[Entry]) -> dict[Slide, list[Entry]]:
    """Return entries by patient and scanner.

    Parameters
    ----------
    entries : iterable of Entry
        The index.

    Returns
    -------
    dict of tuple of str to list of Entry
        In the order of the index.
    """
    found: dict[Slide, list[Entry]] = defaultdict(list)
    for e in entries:
        found[e.patient, e.scanner].append(e)
    return dict(found)


def patches_of(root: Path, entries: Sequence[Entry]) -> Iterator[NDArray[np.uint8]]:
    """Yield patches spread over the images of one slide, 64 or a few more; what is not known (paint, borders) is white on them.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Images of one slide.

    Yields
    ------
    ndarray of uint8, shape (h, w, 3)
        RGB of 256 px; images that are smaller are whole.
    """
    chosen = [entries[k] for k in evenly(len(entries), _PATCHES)]
    for entry in chosen:
        sample = load_sample(root, entry)
        known = (sample.labels != IGNORE).any(axis=2, keepdims=True)
        image = np.where(known, sample.image, np.uint8(_WHITE))
        h, w = image.shape[:2]
        places = [(y, x) for y in _starts(h) for x in _starts(w)]
        for k in evenly(len(places), -(-_PATCHES // len(chosen))):
            y, x = places[k]
            yield image[y : y + PATCH_PX, x : x + PATCH_PX]


def _starts(size_px: int) -> range:
    return range(0, max(1, size_px - PATCH_PX + 1), PATCH_PX)


def stains_of(root: Path, entries: Iterable[Entry]) -> dict[Slide, StainStatistics]:
    """Return the stain of each slide of which there are eight patches or more.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : iterable of Entry
        The index.

    Returns
    -------
    dict of tuple of str to StainStatistics
        By patient and scanner.
    """
    out = {}
    for slide, images in by_slide(entries).items():
        patches = list(patches_of(root, images))
        found = slide_stain(patches) if len(patches) >= _LEAST_PATCHES else None
        if found is not None:
            out[slide] = found
    return out


def on_the_card(stains: Mapping[Slide, StainStatistics], switched_on: bool = False) -> StainNormalisation:
    """Return what a model's card says of the stains that it was trained on.

    Parameters
    ----------
    stains : mapping of tuple of str to StainStatistics
        Of `stains_of`.
    switched_on : bool
        Whether `run --stain auto` normalises.

    Returns
    -------
    StainNormalisation
        The target is the median of each figure. The range is a tenth wider on each side than what was measured.

    Raises
    ------
    DataError
        If there are none.
    """
    if not stains:
        raise DataError(
            f"No slide has {_LEAST_PATCHES} patches of tissue or more, so no stain can be measured. Add images to the index."
        )
    means, spreads = (np.array([getattr(s, name) for s in stains.values()]) for name in ("mean", "spread"))

    def each(of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> StainStatistics:
        mean, spread = np.round(of(means), 4), np.maximum(np.round(of(spreads), 4), _LEAST)
        return StainStatistics(mean=mean.tolist(), spread=spread.tolist())

    return StainNormalisation(
        switched_on=switched_on,
        target=each(lambda v: np.asarray(np.median(v, axis=0))),
        low=each(lambda v: v.min(axis=0) - _MARGIN * np.ptp(v, axis=0)),
        high=each(lambda v: v.max(axis=0) + _MARGIN * np.ptp(v, axis=0)),
        slides=len(stains),
    )


def slide_maps(
    root: Path,
    entries: Sequence[Entry],
    training: Sequence[Entry],
    method: Method,
    known: StainNormalisation | None = None,
) -> dict[Slide, StainMap]:
    """Return the map that brings each slide to the median stain of the training data.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Images of the slides.
    training : sequence of Entry
        Images that tell the target.
    method : {"mean and spread", "macenko"}
        How a stain is estimated and moved.
    known : StainNormalisation, optional
        What a card says; its target takes the place of the training data's.

    Returns
    -------
    dict of tuple of str to StainMap
        By patient and scanner; without slides on which too little tissue is seen.
    """
    if method == "mean and spread":
        target = (known or on_the_card(stains_of(root, training))).target
        own = {s: slide_stain(patches_of(root, e)) for s, e in by_slide(entries).items()}
        return {s: map_between(o, target) for s, o in own.items() if o is not None}
    bases = [macenko_of(patches_of(root, e)) for e in by_slide(training).values()]
    wanted = np.median([b for b in bases if b is not None], axis=0)
    found = {s: macenko_of(patches_of(root, e)) for s, e in by_slide(entries).items()}
    return {s: _macenko_map(b, wanted) for s, b in found.items() if b is not None}


def macenko_of(patches: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64] | None:
    """Return the optical densities of strong haematoxylin and strong eosin, by Macenko et al. (2009).

    Their directions are the first and the last percent of the angles in the plane in which tissue's densities vary most. Their lengths
    are the 99th percent of the densities of each.

    Parameters
    ----------
    patches : iterable of ndarray of uint8, shape (h, w, 3)
        RGB of one slide.

    Returns
    -------
    ndarray of float, shape (2, 3), or None
        Rows: haematoxylin, eosin; columns: R, G, B. None without tissue.
    """
    tissue = [_tissue(p) for p in patches]
    density = np.concatenate(tissue) if tissue else np.zeros((0, 3))
    if len(density) < _LEAST_PATCHES * PATCH_PX:
        return None
    plane = np.linalg.eigh(np.cov(density.T))[1][:, :0:-1]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    angle = np.arctan2(*(density @ plane).T[::-1])
    ends = np.percentile(angle, [_ANGLE_PERCENT, 100 - _ANGLE_PERCENT])
    directions = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    # Haematoxylin takes away more red than eosin does.
    directions = directions[np.argsort(-directions[:, 0])]
    amounts = density @ np.linalg.pinv(directions)
    found: NDArray[np.float64] = directions * np.percentile(amounts, _STRONG_PERCENT, axis=0)[:, None]
    return found


def _tissue(patch: NDArray[np.uint8]) -> NDArray[np.float64]:
    density = optical_density(patch[::2, ::2].astype(np.float32))
    found: NDArray[np.float64] = density[
        (density.min(axis=2) > TISSUE_DENSITY / 2) & ~ink_in(patch)[::2, ::2]
    ].astype(np.float64)
    return found


def _macenko_map(own: NDArray[np.float64], wanted: NDArray[np.float64]) -> StainMap:
    red, green, blue = (tuple(row) for row in (np.linalg.pinv(own) @ wanted).tolist())
    return StainMap((red, green, blue), (0.0, 0.0, 0.0))
