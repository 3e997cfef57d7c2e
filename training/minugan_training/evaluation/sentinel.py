"""The range of stain, focus and compression that a model knows, and how well it tells what lies outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.images import compressed
from minugan_training.data.index import Entry
from minugan_training.data.labels import load_sample
from wsi_minugan.config import PATCH_PX
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import evenly
from wsi_minugan.minugan.sentinel import Kind, TrainingRange, range_of, slide_figures, strangeness
from wsi_minugan.minugan.stain import with_density_times

Image = NDArray[np.uint8]
_SAMPLED = 6
"""Patches of an image that are measured: neighbours say much the same."""


def _cast(red: float, green: float, blue: float) -> Callable[[Image], Image]:
    factors = np.array([red, green, blue], np.float32)
    return lambda image: np.clip(image * factors, 0, 255).astype(np.uint8)


def _denser(factor: float) -> Callable[[Image], Image]:
    """Return what makes a stain darker or paler: optical density times a factor."""
    return lambda image: np.clip(with_density_times(image.astype(np.float64), factor), 0, 255).astype(
        np.uint8
    )


MADE: dict[str, tuple[Kind, Callable[[Image], Image]]] = {
    "blur, sigma 1 px": ("focus", lambda image: cv2.GaussianBlur(image, (0, 0), 1.0)),
    "blur, sigma 2 px": ("focus", lambda image: cv2.GaussianBlur(image, (0, 0), 2.0)),
    "blur, sigma 4 px": ("focus", lambda image: cv2.GaussianBlur(image, (0, 0), 4.0)),
    "JPEG, quality 50": ("compression", lambda image: compressed(image, 50)),
    "JPEG, quality 30": ("compression", lambda image: compressed(image, 30)),
    "JPEG, quality 15": ("compression", lambda image: compressed(image, 15)),
    "yellow lamp (blue x 0.85)": ("stain", _cast(1.0, 1.0, 0.85)),
    "green cast (red x 0.85)": ("stain", _cast(0.85, 1.0, 1.0)),
    "green cast (red x 0.7)": ("stain", _cast(0.7, 1.0, 1.0)),
    "paler stain (density x 0.5)": ("stain", _denser(0.5)),
    "darker stain (density x 1.6)": ("stain", _denser(1.6)),
}
"""What was made of images, and what should tell it."""


@dataclass(frozen=True)
class Measured:
    """The figures of one image.

    Attributes
    ----------
    entry : Entry
        Of the index.
    change : str
        What was made of it; empty where nothing.
    figures : dict of str to float
        Of `slide_figures`.
    """

    entry: Entry
    change: str
    figures: dict[str, float]


def measured(root: Path, entries: Sequence[Entry], changes: Sequence[str] = ("",)) -> Iterator[Measured]:
    """Yield the figures of images as they are (""), and of what is made of them; images too small for a patch are left out.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The images.
    changes : sequence of str
        Names of what is done to them.

    Yields
    ------
    Measured
        For each image and change.
    """
    for entry in entries:
        image = load_sample(root, entry).image
        if min(image.shape[:2]) < PATCH_PX:
            continue
        for change in changes:
            figures = slide_figures(_patches(MADE[change][1](image) if change else image))
            if figures:
                yield Measured(entry, change, figures)


def _patches(image: Image) -> Iterator[Image]:
    """Yield some patches, spread evenly."""
    h, w = image.shape[:2]
    places = [
        (y, x) for y in range(0, h - PATCH_PX + 1, PATCH_PX) for x in range(0, w - PATCH_PX + 1, PATCH_PX)
    ]
    for k in evenly(len(places), _SAMPLED):
        y, x = places[k]
        yield image[y : y + PATCH_PX, x : x + PATCH_PX]


def training_range(found: Sequence[Measured]) -> TrainingRange:
    """Return the range of images as they are.

    Parameters
    ----------
    found : sequence of Measured
        Figures of the training's images.

    Returns
    -------
    TrainingRange
        For the model's folder.

    Raises
    ------
    DataError
        If there are none.
    """
    plain = [m for m in found if not m.change]
    if not plain:
        raise DataError("There is no image of 256 px or more to measure a range on.")
    return range_of((m.figures for m in plain), sorted({scanner_of(m.entry) for m in plain}))


def scanner_of(entry: Entry) -> str:
    """Return a data set and its scanner, in words.

    Parameters
    ----------
    entry : Entry
        The image.

    Returns
    -------
    str
        The data set alone where the scanner is not known.
    """
    return f"{entry.dataset}, {entry.scanner}" if entry.scanner else entry.dataset


@dataclass(frozen=True)
class Told:
    """How well a change, or a scanner that is not in the range, is told from images as they are.

    Attributes
    ----------
    what : str
        The change or scanner.
    kind : str
        The figure that should tell; "any" for a scanner.
    auroc : float
        Area under the curve: chance that an altered image looks stranger than one as it is.
    warned, warned_plain : float
        Share of the altered images, and of those as they are, that lie outside of the range.
    images : int
        Altered images.
    """

    what: str
    kind: str
    auroc: float
    warned: float
    warned_plain: float
    images: int


def told_changes(found: Sequence[Measured], known: TrainingRange) -> list[Told]:
    """Return how well each made change is told, on images that the range was not measured on.

    Parameters
    ----------
    found : sequence of Measured
        Images as they are, and changed.
    known : TrainingRange
        The range.

    Returns
    -------
    list of Told
        Area under the ROC curve for each change.
    """
    by_change: dict[str, list[Measured]] = defaultdict(list)
    for m in found:
        by_change[m.change].append(m)
    changed = {m.entry.image for m in found if m.change}
    plain = [m for m in by_change[""] if m.entry.image in changed]
    return [
        _told(change, MADE[change][0], by_change[change], plain, known)
        for change in MADE
        if by_change[change]
    ]


def told_scanners(train: Sequence[Measured], other: Sequence[Measured]) -> list[Told]:
    """Return, for each scanner, how well it is told by a range that lacks it from other patients of the scanners in the range.

    Parameters
    ----------
    train : sequence of Measured
        What the range is made of.
    other : sequence of Measured
        Other patients.

    Returns
    -------
    list of Told
        Area under the ROC curve for each scanner.
    """
    plain = [m for m in [*train, *other] if not m.change]
    out = []
    for scanner in sorted({scanner_of(m.entry) for m in plain}):
        known = training_range([m for m in train if scanner_of(m.entry) != scanner])
        strange = [m for m in plain if scanner_of(m.entry) == scanner]
        same = [m for m in other if not m.change and scanner_of(m.entry) != scanner]
        out.append(_told(scanner, "any", strange, same, known))
    return out


def _told(
    what: str, kind: str, altered: Sequence[Measured], plain: Sequence[Measured], known: TrainingRange
) -> Told:
    values, others = ([_value(m, kind, known) for m in part] for part in (altered, plain))
    return Told(
        what, kind, auroc(values, others), _share_outside(values), _share_outside(others), len(values)
    )


def _value(m: Measured, kind: str, known: TrainingRange) -> float:
    far = strangeness(m.figures, known)
    return max(v for k, v in far.items() if kind in {"any", k})


def _share_outside(values: Sequence[float]) -> float:
    return float(np.mean(np.array(values) > 1)) if values else 0.0


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the chance that a positive's value is above a negative's; ties count half.

    Parameters
    ----------
    positive, negative : sequence of float
        Values of each kind.

    Returns
    -------
    float
        0 to 1; NaN where one kind is missing.

    Examples
    --------
    >>> auroc([0.9, 0.4], [0.1, 0.4])
    0.875
    """
    if not positive or not negative:
        return float("nan")
    difference = np.asarray(positive)[:, None] - np.asarray(negative)[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
