"""Calibrated scores, and an operating point that no single patient decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from wsi_minugan.errors import DataError

FROC_AT = (1.0, 2.0, 5.0, 10.0)
"""False positives a mm2 at which recall is reported."""
_LEAST_POSITIVE = 3
_RIDGE = 1e-3
_AS_GOOD = 0.01
"""Difference of mean F-scores that a few patients cannot tell from none."""


@dataclass(frozen=True)
class PatientCandidates:
    """One patient's candidates on whole fields, on one scanner.

    Attributes
    ----------
    logits : ndarray of float, shape (n, d)
        Features of each candidate: the classifier's logit, the first stage's logit.
    hit : ndarray of bool, shape (n,)
        Whether the candidate is a mitosis.
    truths : int
        Labelled mitoses, found or not.
    area_mm2 : float
        Area of which everything is known.
    """

    logits: NDArray[np.float64]
    hit: NDArray[np.bool_]
    truths: int
    area_mm2: float


@dataclass(frozen=True)
class Calibration:
    """From features to the probability of a mitosis: a logistic function.

    Attributes
    ----------
    weights : tuple of float
        One for each feature.
    bias : float
        Added to the weighted sum.
    """

    weights: tuple[float, ...]
    bias: float

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities ``(n,)`` of features ``(n, d)``.

        Parameters
        ----------
        logits : ndarray of float, shape (n, d)
            Features.

        Returns
        -------
        ndarray of float, shape (n,)
            0 to 1.
        """
        return np.asarray(expit(np.asarray(logits) @ np.array(self.weights) + self.bias))


def fit_calibration(patients: Sequence[PatientCandidates]) -> Calibration:
    """Fit a logistic function to the candidates of several patients, with one voice for each patient.

    Parameters
    ----------
    patients : sequence of PatientCandidates
        Those without candidates have no voice.

    Returns
    -------
    Calibration
        With one weight for each feature.

    Raises
    ------
    DataError
        If no patient has a candidate.
    """
    told = [p for p in patients if len(p.hit)]
    if not told:
        raise DataError("The model finds no candidate on these fields, so nothing can be calibrated.")
    x = np.concatenate([p.logits for p in told])
    y = np.concatenate([p.hit for p in told]).astype(np.float64)
    weight = np.concatenate([np.full(len(p.hit), 1 / len(p.hit)) for p in told]) / len(told)

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = x @ v[:-1] + v[-1]
        error = (expit(z) - y) * weight
        value = float((weight * (np.logaddexp(0, z) - y * z)).sum() + _RIDGE * (v[:-1] ** 2).sum())
        return value, np.append(error @ x + 2 * _RIDGE * v[:-1], error.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B")
    return Calibration(tuple(map(float, found.x[:-1])), float(found.x[-1]))


def expected_calibration_error(
    probability: NDArray[np.float64],
    hit: NDArray[np.bool_],
    weight: NDArray[np.float64] | None = None,
    bins: int = 10,
) -> float:
    """Return the mean distance of score and truth over bins of equal width, weighted by their numbers (Naeini et al. 2015).

    Parameters
    ----------
    probability : ndarray of float, shape (n,)
        Scores, 0 to 1.
    hit : ndarray of bool, shape (n,)
        The truth.
    weight : ndarray of float, shape (n,), optional
        How much each counts; by default alike.
    bins : int
        Number of bins.

    Returns
    -------
    float
        0 to 1.
    """
    w = np.ones(len(hit)) if weight is None else weight
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(which, w * probability, bins) - np.bincount(which, w * hit, bins)
    return float(np.abs(gap).sum() / max(w.sum(), 1e-12))


def f1_at(
    patient: PatientCandidates, probability: NDArray[np.float64], threshold: float, beta: float = 1.0
) -> float:
    """Return the F-score of a patient's candidates from a threshold on; `beta` is recall's weight against precision's.

    Parameters
    ----------
    patient : PatientCandidates
        One patient.
    probability : ndarray of float, shape (n,)
        Scores of the candidates.
    threshold : float
        From here on a candidate counts.
    beta : float
        Weight of recall against precision.

    Returns
    -------
    float
        0 to 1; 1 where there is nothing to find and nothing was found.
    """
    kept = probability >= threshold
    tp = int((kept & patient.hit).sum())
    both = int(kept.sum()) + beta**2 * patient.truths
    return (1 + beta**2) * tp / both if both else 1.0


def froc(patient: PatientCandidates, probability: NDArray[np.float64]) -> dict[float, float]:
    """Return recall at 1, 2, 5 and 10 false positives a mm2: the highest that a threshold reaches with no more.

    Parameters
    ----------
    patient : PatientCandidates
        One patient.
    probability : ndarray of float, shape (n,)
        Scores of the candidates.

    Returns
    -------
    dict of float to float
        Recall by false positives a mm2.
    """
    order = np.argsort(-probability, kind="stable")
    hit = patient.hit[order]
    fp = np.cumsum(~hit) / patient.area_mm2
    recall = np.cumsum(hit) / max(1, patient.truths)
    return {at: float(recall[fp <= at].max(initial=0.0)) for at in FROC_AT}


def best_threshold(
    patients: Sequence[PatientCandidates], calibration: Calibration, beta: float = 1.0
) -> float:
    """Return the threshold with the highest F-score in the mean of the patients who have mitoses enough to tell.

    Parameters
    ----------
    patients : sequence of PatientCandidates
        Each has one voice.
    calibration : Calibration
        Their scores.
    beta : float
        Weight of recall against precision.

    Returns
    -------
    float
        The middle one of those within 0.01 of the best.

    Raises
    ------
    DataError
        If no patient has mitoses enough.
    """
    told = [(p, calibration.probability(p.logits)) for p in patients if p.truths >= _LEAST_POSITIVE]
    if not told:
        raise DataError(
            f"An operating point needs two patients or more with {_LEAST_POSITIVE} labelled mitoses or more each, "
            "since each patient is left out in turn. Add whole fields of other patients to the index."
        )
    grid = np.arange(0.05, 0.96, 0.01)
    mean = [float(np.mean([f1_at(p, s, t, beta) for p, s in told])) for t in grid]
    # Where F1 is flat, its ends are chance: in the middle neither recall nor precision falls soon on another patient.
    good = grid[np.array(mean) >= max(mean) - _AS_GOOD]
    return float(np.round(good[len(good) // 2], 2))


def leave_one_out(patients: Mapping[str, PatientCandidates]) -> dict[str, tuple[float, float]]:
    """Return, for each patient, the threshold that the others choose, and the F1 that the patient has at it.

    Parameters
    ----------
    patients : mapping of str to PatientCandidates
        By name.

    Returns
    -------
    dict of str to tuple of float
        Threshold, F1.

    Raises
    ------
    DataError
        If the others have mitoses too few to choose by.
    """
    out = {}
    for name, left_out in patients.items():
        others = [p for k, p in patients.items() if k != name]
        calibration = fit_calibration(others)
        threshold = best_threshold(others, calibration)
        out[name] = threshold, f1_at(left_out, calibration.probability(left_out.logits), threshold)
    return out
