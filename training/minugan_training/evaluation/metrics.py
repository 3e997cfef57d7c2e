"""Figures of merit, pooled over images, with intervals by patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """Pooled counts of one group of images (a patient, say).

    Attributes
    ----------
    tp, fp, fn : int
        True positives, false positives, false negatives.
    area_mm2 : float
        Area looked at.
    """

    tp: int
    fp: int
    fn: int
    area_mm2: float = 0.0

    def __add__(self, other: Detections) -> Detections:
        return Detections(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.area_mm2 + other.area_mm2
        )

    @property
    def precision(self) -> float:
        """TP / (TP + FP); 0 where nothing was found.

        Returns
        -------
        float
            0 to 1.
        """
        return self.tp / max(1, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 0 where there is nothing to find.

        Returns
        -------
        float
            0 to 1.
        """
        return self.tp / max(1, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN).

        Returns
        -------
        float
            0 to 1.
        """
        return 2 * self.tp / max(1, 2 * self.tp + self.fp + self.fn)

    @property
    def fp_per_mm2(self) -> float:
        """False positives per mm2 looked at.

        Returns
        -------
        float
            NaN where the area is not known.
        """
        return self.fp / self.area_mm2 if self.area_mm2 else float("nan")


def pooled(groups: Sequence[Detections]) -> Detections:
    """Sum the counts of all groups.

    Parameters
    ----------
    groups : sequence of Detections
        One for each group.

    Returns
    -------
    Detections
        The sums.

    Examples
    --------
    >>> pooled([Detections(8, 2, 0, 1.0), Detections(1, 1, 3, 2.0)]).f1
    0.75
    """
    return sum(groups, Detections(0, 0, 0))


def bootstrap_interval(
    groups: Mapping[str, Detections],
    figure: Callable[[Detections], float],
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a pooled figure over resampled groups (patients, or slides).

    Parameters
    ----------
    groups : mapping of str to Detections
        By patient or slide.
    figure : callable
        From summed counts to a number.
    draws : int
        Number of resamplings.
    level : float
        Share of the draws between the two limits.
    seed : int
        Of the random numbers.

    Returns
    -------
    tuple of float
        Low, high.
    """
    values = list(groups.values())
    rng = np.random.default_rng(seed)
    found = [
        figure(pooled([values[k] for k in rng.integers(0, len(values), len(values))])) for _ in range(draws)
    ]
    return _middle(found, level)


def mean_interval(
    groups: Mapping[str, Sequence[float]], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of a mean over images, with groups of images (patients, say) resampled.

    Parameters
    ----------
    groups : mapping of str to sequence of float
        Figures of the images, by patient.
    draws : int
        Number of resamplings.
    level : float
        Share of the draws between the two limits.
    seed : int
        Of the random numbers.

    Returns
    -------
    tuple of float
        Low, high.
    """
    sums, counts = (np.array([f(v) for v in groups.values()], float) for f in (sum, len))
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return _middle(means, level)


def _middle(values: Sequence[float] | NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values, np.float64), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_by(patients: Iterable[str]) -> Literal["patient", "image"]:
    """Return what an interval resamples: patients, or, where all images are of one, images.

    Parameters
    ----------
    patients : iterable of str
        Of each image.

    Returns
    -------
    {"patient", "image"}
        In words for a table.
    """
    return "patient" if len(set(patients)) > 1 else "image"


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two masks; 1 where both are empty.

    Parameters
    ----------
    a, b : ndarray of bool
        Masks of one shape.

    Returns
    -------
    float
        0 to 1.
    """
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def average_precision(scores: NDArray[np.float64], hit: NDArray[np.bool_], truths: int) -> float:
    """Return the area under precision over recall, all points, with the precision made monotone.

    Parameters
    ----------
    scores : ndarray of float, shape (n,)
        Scores of detections.
    hit : ndarray of bool, shape (n,)
        Whether each is a true positive.
    truths : int
        Number of truths.

    Returns
    -------
    float
        0 to 1.

    Examples
    --------
    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), truths=2)
    0.8333333333333333
    """
    if truths == 0 or len(scores) == 0:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    tp = np.cumsum(hit[order])
    precision = tp / np.arange(1, len(tp) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(np.concatenate([[0], tp]))
    return float((envelope * gained).sum() / truths)


def panoptic_quality(found: NDArray[np.integer], truth: NDArray[np.integer]) -> tuple[float, float, float]:
    """Return panoptic, segmentation and recognition quality of two label maps (Kirillov et al., CVPR 2019).

    Parameters
    ----------
    found, truth : ndarray of int, shape (h, w)
        0 is background.

    Returns
    -------
    tuple of float
        Each 0 to 1; objects match above an IoU of 0.5.
    """
    found_area, truth_area = np.bincount(found.ravel()), np.bincount(truth.ravel())
    both = (found > 0) & (truth > 0)
    codes = found[both].astype(np.int64) * len(truth_area) + truth[both]
    pairs, common = np.unique(codes, return_counts=True)
    f, t = pairs // len(truth_area), pairs % len(truth_area)
    iou = common / (found_area[f] + truth_area[t] - common)
    matched = iou[iou > 0.5]
    n_found, n_truth = int((found_area[1:] > 0).sum()), int((truth_area[1:] > 0).sum())
    recognition = 2 * len(matched) / max(1, n_found + n_truth)
    segmentation = float(matched.mean()) if len(matched) else 0.0
    return segmentation * recognition, segmentation, recognition
