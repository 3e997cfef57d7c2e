"""Detections to truth, one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

FloatArray = NDArray[np.float64]

MIDOG_RADIUS_UM = 7.5
ICPR_RADIUS_UM = 5.0
PAPER_WINDOW_PX = 25


@dataclass(frozen=True)
class Matches:
    """One image's matching.

    Attributes
    ----------
    pairs : ndarray of int, shape (k, 2)
        Indices of detection and truth.
    false_positives, false_negatives : ndarray of int
        Indices of detections and of truths left over.
    """

    pairs: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]


def match(found_px: FloatArray, truth_px: FloatArray, radius_px: float) -> Matches:
    """Match as many detections to truths as can be, and of these choices the one with the least summed distance.

    Parameters
    ----------
    found_px, truth_px : ndarray of float, shapes (n, 2), (m, 2)
        x, y.
    radius_px : float
        Greatest distance of a match.
    """
    n, m = len(found_px), len(truth_px)
    pairs = np.zeros((0, 2), np.int64)
    if n and m:
        distance = cdist(np.reshape(found_px, (-1, 2)), np.reshape(truth_px, (-1, 2)))
        near = distance <= radius_px
        # One pair too far away costs more than all near ones together, so the number of matches comes first.
        far = (min(n, m) + 1) * max(radius_px, 1e-9)
        rows, columns = linear_sum_assignment(np.where(near, distance, far))
        good = near[rows, columns]
        pairs = np.stack([rows[good], columns[good]], axis=1).astype(np.int64)
    left_found = np.setdiff1d(np.arange(n), pairs[:, 0])
    left_truth = np.setdiff1d(np.arange(m), pairs[:, 1])
    return Matches(pairs, left_found, left_truth)
