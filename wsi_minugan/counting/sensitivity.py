"""How a count hangs on the threshold: the same count with ever higher cuts on the mitoses' scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.windows import Shape, find_windows

FloatArray = NDArray[np.float64]
_STEPS = 8


@dataclass(frozen=True)
class Step:
    """The count at one threshold.

    Attributes
    ----------
    threshold : float
        Least score of a mitosis, 0 to 1.
    mitoses : int
        Mitoses in all.
    in_hotspot : int
        Mitoses in the hot spot that is best at this threshold.
    """

    threshold: float
    mitoses: int
    in_hotspot: int


def thresholds_of(scores: FloatArray) -> FloatArray:
    """Return thresholds that leave out ever more mitoses, from none of them to half of them.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        Scores of the mitoses, 0 to 1.

    Returns
    -------
    ndarray of float, shape (m,)
        Thresholds, ascending and distinct, rounded to 4 digits. The first is the lowest score. Empty where there are no scores.
    """
    if len(scores) == 0:
        return np.zeros(0)
    shares = np.linspace(0, 0.5, _STEPS)
    found = np.quantile(np.asarray(scores, np.float64), shares, method="higher")
    return np.unique(np.round(found, 4))


def sensitivity(
    points_px: FloatArray, scores: FloatArray, shape: Shape, tissue: TissueRaster | None = None
) -> Iterator[Step]:
    """Count again at each of the thresholds of `thresholds_of`.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    scores : ndarray of float, shape (n,)
        Their scores, 0 to 1. Objects below the threshold of the run are not known, so the curve begins there.
    shape : Shape
        Shape of the hot spot, level-0 px. Its place is found anew at each threshold.
    tissue : TissueRaster, optional
        What was analysed. Of hot spots with equal counts, the one with more of it wins.

    Yields
    ------
    Step
        The counts at one threshold, lowest threshold first.
    """
    for threshold in thresholds_of(scores):
        kept = points_px[np.round(scores, 4) >= threshold]
        spots = find_windows(kept, shape, 1, tissue)
        yield Step(float(threshold), len(kept), spots[0].mitoses if spots else 0)
