"""Whether the colours around mitoses tell where they are: a network would learn that, and fail on every other slide."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry
from minugan_training.data.labels import load_sample, mitosis_truth

_REACH_PX = 69
_RING_PX = (26, 42)
"""Around a mitosis, without the mitosis: its distance from the middle, in x or y. Restored places reach 50 px."""
_FRAME_PX = 56
"""Beyond this distance is the tissue that the ring is compared with."""
_ELSEWHERE = 30
"""Places looked at in an image for comparison."""
_FEWEST = 20


class Sharpness(NamedTuple):
    """How sharp colours are around places, in units of those of the tissue farther out.

    Attributes
    ----------
    at_mitoses, elsewhere : ndarray of float, shape (n,)
        Around mitoses, and around places drawn at random.
    """

    at_mitoses: NDArray[np.float64]
    elsewhere: NDArray[np.float64]

    @property
    def medians(self) -> tuple[float, float]:
        """Medians at mitoses and elsewhere; NaN where there are none.

        Returns
        -------
        tuple of float
            At mitoses, elsewhere.
        """
        at_mitoses, elsewhere = (float(np.median(v)) if len(v) else math.nan for v in self)
        return at_mitoses, elsewhere

    @property
    def chance(self) -> float:
        """Chance that a mitosis has sharper colours around it than a place drawn at random; 0.5 tells nothing, nor do few mitoses.

        Returns
        -------
        float
            0 to 1; the area under the ROC curve.
        """
        if len(self.at_mitoses) < _FEWEST or not len(self.elsewhere):
            return 0.5
        return float((self.at_mitoses[:, None] > self.elsewhere).mean())


def sharpness_of(root: Path, entries: Sequence[Entry], *, as_stored: bool = False) -> dict[str, Sharpness]:
    """Return the sharpness of colours by data set, for those whose images are large enough to compare places.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Those with known mitoses are used.
    as_stored : bool
        Look at the files' own colours, also where they are levelled when they are read (`Entry.colours`).

    Returns
    -------
    dict of str to Sharpness
        By data set.

    Raises
    ------
    DataError
        If a file is missing or cannot be read.
    """
    found: dict[str, list[Sharpness]] = defaultdict(list)
    for number, entry in enumerate(entries):
        if entry.mitoses != "known" or min(entry.width_px, entry.height_px) <= 2 * _REACH_PX + 1:
            continue
        read = entry.model_copy(update={"colours": ""}) if as_stored else entry
        sample = load_sample(root, read)
        h, w = sample.image.shape[:2]
        places = np.random.default_rng(number).uniform((0, 0), (w, h), (_ELSEWHERE, 2))
        detail = _detail(sample.image)
        found[entry.dataset].append(
            Sharpness(*(_around(detail, xy) for xy in (mitosis_truth(root, read, sample), places)))
        )
    return {name: Sharpness(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in found.items()}


def _detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how far each pixel's colours are from those of its neighbours, shape ``(h, w)``."""
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float32)
    return np.asarray(np.abs(colours - cv2.blur(colours, (2, 2))).mean(axis=2), np.float32)


def _around(detail: NDArray[np.float32], xy_px: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    distance = np.maximum(*np.abs(np.mgrid[-_REACH_PX : _REACH_PX + 1, -_REACH_PX : _REACH_PX + 1]))
    ring, frame = (distance > _RING_PX[0]) & (distance < _RING_PX[1]), distance > _FRAME_PX
    h, w = detail.shape
    out = []
    for x, y in (xy.astype(int) for xy in xy_px):
        if min(x, y, w - 1 - x, h - 1 - y) >= _REACH_PX:
            part = detail[y - _REACH_PX : y + _REACH_PX + 1, x - _REACH_PX : x + _REACH_PX + 1]
            out.append(part[ring].mean() / max(part[frame].mean(), 1e-6))
    return np.array(out, np.float64)
