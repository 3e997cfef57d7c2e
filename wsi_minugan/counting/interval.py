"""How many mitoses a window truly holds, given how many were found: a predictive distribution, its interval, and each score's chance.

The model, for one patient and one window of area A:

- the true density in the window is Gamma-distributed about the slide's, and the true number N is Poisson of density times A;
- each true mitosis is found with the patient's recall, which is Beta-distributed between patients;
- false positives are Poisson of the patient's rate times A, which is Gamma-distributed between patients.

What recall and rate do between patients is learned from the model card's counts by patient, with what a dozen patients leave open: the
spread's own parameters are drawn from their posterior on a grid. How uneven the slide is comes from the counts in its other parts. A
window that was chosen because it holds the most is then drawn back towards the slide's density as far as chance explains its count
(empirical Bayes; Robbins 1956, Efron 2011), which corrects the optimism of the maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln

FloatArray = NDArray[np.float64]
LEVEL = 0.95
DRAWS = 8000
LEAST_PATIENTS = 3
"""Between fewer patients no spread can be seen."""
_SEED = 20_261_126
_LEAST_SHARE = 0.02
"""Where fewer of those found were true, a slide would hold none to speak of."""
_MOST_ALIKE = 1.0
"""Most even that true densities are taken to be between patients (shape of a Gamma distribution)."""


@dataclass(frozen=True)
class PatientCounts:
    """What was measured on one patient's fields.

    Attributes
    ----------
    area_mm2 : float
        Area looked at.
    true_positives, false_positives, false_negatives : int
        Objects matched to the experts' mitoses, and those left over on either side.
    """

    area_mm2: float
    true_positives: int
    false_positives: int
    false_negatives: int


@dataclass(frozen=True)
class Found:
    """What was found in a window, and around it.

    Attributes
    ----------
    mitoses : int
        Mitoses found in the window.
    area_mm2 : float
        Its analysed area.
    tiles : ndarray of float, shape (m, 2)
        For parts of the slide about as large as the window: mitoses found, and mm2 of tissue. Empty where not known; the window's
        density is then taken as any patient's, and no optimism is corrected.
    probabilities : ndarray of float, shape (mitoses,), optional
        Calibrated probability of each found mitosis to be one.
    prevalence : float
        Share of true ones among the objects that the probabilities were calibrated on.
    """

    mitoses: int
    area_mm2: float
    tiles: FloatArray | None = None
    probabilities: FloatArray | None = None
    prevalence: float = 0.5


@dataclass(frozen=True)
class Predicted:
    """Draws of the true number of mitoses in a window.

    Attributes
    ----------
    numbers : ndarray of int, shape (draws,)
        The number, all draws alike in weight.
    optimism : float or None
        By how much the expected number is lower because the window was chosen for its count; None where the slide is not known.
    """

    numbers: NDArray[np.int64]
    optimism: float | None = None

    def interval(self, level: float = LEVEL) -> tuple[int, int]:
        """Return the central interval of the number of mitoses.

        Parameters
        ----------
        level : float
            Share of the draws in the interval, 0 to 1.

        Returns
        -------
        tuple of int
            The smallest and the largest number, both in the interval.

        Examples
        --------
        >>> Predicted(np.arange(101)).interval(0.9)
        (5, 95)
        """
        tail = (1 - level) / 2
        low, high = np.quantile(self.numbers, [tail, 1 - tail], method="inverted_cdf")
        return int(low), int(high)

    @property
    def expected(self) -> float:
        """The expected number of mitoses.

        Returns
        -------
        float
            Mean of all draws.
        """
        return float(self.numbers.mean())

    def probabilities(self, scores: NDArray[np.int64]) -> dict[int, float]:
        """Return the probability of each mitotic score.

        Parameters
        ----------
        scores : ndarray of int, shape (draws,)
            Score that each draw's number gets, 1 to 3.

        Returns
        -------
        dict of int to float
            Share of the draws, 0 to 1, by score.
        """
        return {s: round(float((scores == s).mean()), 4) for s in (1, 2, 3)}


def predict(
    found: Found, patients: Sequence[PatientCounts], draws: int = DRAWS, seed: int = _SEED
) -> Predicted:
    """Draw the true number of mitoses in a window.

    Parameters
    ----------
    found : Found
        What was found in the window, and around it where that is known.
    patients : sequence of PatientCounts
        The model's errors on patients that it was tested on, from its card; three at least.
    draws : int
        Number of draws.
    seed : int
        Seed of the random numbers. The same seed gives the same draws.

    Returns
    -------
    Predicted
        Draws of the true number; see `Predictive.of`.

    Raises
    ------
    ValueError
        If there are fewer than three patients.
    """
    return Predictive(patients, draws, seed).of(found)


class Predictive:
    """Predictions for any window, from one card's counts.

    Parameters
    ----------
    patients : sequence of PatientCounts
        The model's errors on patients that it was tested on, from its card; three at least.
    draws : int
        Number of draws of each prediction.
    seed : int
        Seed of the random numbers. The same seed gives the same draws.

    Raises
    ------
    ValueError
        If there are fewer than three patients.
    """

    def __init__(self, patients: Sequence[PatientCounts], draws: int = DRAWS, seed: int = _SEED) -> None:
        if len(patients) < LEAST_PATIENTS:
            raise ValueError(f"an interval needs {LEAST_PATIENTS} patients or more, not {len(patients)}")
        self._seed = seed
        rng = np.random.default_rng(seed)
        tp, fp, fn, area = (
            np.array([getattr(p, a) for p in patients], float)
            for a in ("true_positives", "false_positives", "false_negatives", "area_mm2")
        )
        self._recall = _recalls(tp, tp + fn, draws, rng)
        rate, rate_shape = _rates(fp, area, draws, rng)
        self._false_rate = rng.gamma(rate_shape, rate / rate_shape)
        self._density, density_shape = _rates(tp + fn, area, draws, rng)
        # A window may be unlike all fields of the card, however alike these are.
        self._density_shape = np.minimum(density_shape, _MOST_ALIKE)

    def of(self, found: Found) -> Predicted:
        """Return the draws for one window.

        Parameters
        ----------
        found : Found
            What was found in the window, and around it where that is known.

        Returns
        -------
        Predicted
            The draws. With the slide's tiles, the optimism of choosing the window for its
            count is taken off.
        """
        rng = np.random.default_rng(self._seed + 1)
        alone = self._numbers(found, self._density, self._density_shape, None, rng)
        if found.tiles is None or len(found.tiles) == 0:
            return Predicted(alone)
        density, shape, weight = self._of_slide(found.tiles, rng)
        numbers = self._numbers(found, density, shape, weight, rng)
        return Predicted(numbers, round(float(alone.mean() - numbers.mean()), 3))

    def _of_slide(
        self, tiles: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return draws of the slide's true density, of how even it is, and the draws' weights."""
        found_rate, found_shape = _rates(tiles[:, 0], tiles[:, 1], len(self._recall), rng)
        true_share = 1 - self._false_rate / found_rate
        density = found_rate * true_share / self._recall
        possible = true_share > _LEAST_SHARE
        # What is seen varies less than the density: false positives are even.
        shape = np.where(possible, found_shape * np.maximum(true_share, _LEAST_SHARE) ** 2, 1.0)
        density = np.where(possible, density, 1e-6)
        # Of a whole slide's density only that it has no scale: the card's fields were chosen where there are many mitoses.
        weight = np.where(possible, 1 / (density * self._recall), 0.0)
        return density, shape, weight if possible.any() else np.ones(len(possible))

    def _numbers(
        self,
        found: Found,
        density: FloatArray,
        shape: FloatArray,
        weight: FloatArray | None,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Draw true positives among those found, then what was missed."""
        n, area = found.mitoses, found.area_mm2
        true = np.arange(n + 1)[None]
        log = _log_negative_binomial(true, shape[:, None], (self._recall * density * area)[:, None])
        log = log + _log_poisson(n - true, (self._false_rate * area)[:, None]) + _log_marks(found)
        top = log.max(axis=1, keepdims=True)
        mass = np.exp(log - top)
        total = mass.sum(axis=1)
        # Draws are taken by how well they explain the count; where they come from the slide, they have done so already.
        evidence = total * np.exp(top[:, 0] - top.max()) if weight is None else weight
        chosen = rng.choice(len(evidence), len(evidence), p=evidence / evidence.sum())
        cumulated = np.cumsum(mass[chosen], axis=1) / total[chosen, None]
        hits = (cumulated < rng.random(len(chosen))[:, None]).sum(axis=1)
        recall, density, shape = self._recall[chosen], density[chosen], shape[chosen]
        here = rng.gamma(shape + hits, 1 / (shape / density + recall * area))
        return np.asarray(hits + rng.poisson((1 - recall) * here * area), np.int64)


def _recalls(found: FloatArray, truths: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draw recalls of a patient that was not measured: Beta between patients, its mean and strength from a grid's posterior."""
    mean, strength = np.meshgrid(np.linspace(0.01, 0.99, 50), np.geomspace(2, 500, 24))
    a, b = (mean * strength).ravel(), ((1 - mean) * strength).ravel()
    log = (betaln(found[:, None] + a, (truths - found)[:, None] + b) - betaln(a, b)).sum(axis=0)
    k = _chosen(log, draws, rng)
    return np.clip(rng.beta(a[k], b[k]), 1e-3, 1 - 1e-6)


def _rates(
    counts: FloatArray, area_mm2: FloatArray, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw mean and shape of a Gamma distribution of rates per mm2, from counts over areas."""
    guess = (counts.sum() + 0.5) / area_mm2.sum()
    mean, shape = np.meshgrid(guess * np.geomspace(0.1, 10, 60), np.geomspace(0.2, 100, 28))
    mean, shape = mean.ravel(), shape.ravel()
    log = _log_negative_binomial(counts[:, None], shape, mean * area_mm2[:, None]).sum(axis=0)
    k = _chosen(log, draws, rng)
    return mean[k], shape[k]


def _chosen(log_weight: FloatArray, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    weight = np.exp(log_weight - log_weight.max())
    return rng.choice(len(weight), draws, p=weight / weight.sum())


def _log_negative_binomial(count: NDArray[Any], shape: FloatArray, mean: FloatArray) -> FloatArray:
    """Return the log-probability of a Poisson count whose mean is Gamma-distributed."""
    out = gammaln(count + shape) - gammaln(shape) - gammaln(count + 1.0)
    return np.asarray(out + shape * np.log(shape / (shape + mean)) + count * np.log(mean / (shape + mean)))


def _log_poisson(count: NDArray[Any], mean: FloatArray) -> FloatArray:
    mean = np.maximum(mean, 1e-12)
    return np.asarray(count * np.log(mean) - mean - gammaln(count + 1.0))


def _log_marks(found: Found) -> FloatArray:
    """Return, for 0 to n true ones among those found, the log-likelihood of the objects' scores.

    Each object weighs by how much likelier its score is of a true one than of a false one; summed over all choices of which are true.
    """
    n = found.mitoses
    if found.probabilities is None or n == 0 or len(found.probabilities) != n:
        return np.zeros(n + 1)
    p = np.clip(found.probabilities, 1e-4, 1 - 1e-4)
    base = np.clip(found.prevalence, 1e-4, 1 - 1e-4)
    log_ratio = np.log(p / (1 - p)) - np.log(base / (1 - base))
    total = np.full(n + 1, -np.inf)
    total[0] = 0.0
    for r in log_ratio:
        total[1:] = np.logaddexp(total[1:], total[:-1] + r)
    k = np.arange(n + 1)
    return np.asarray(total - (gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)))


def of_another_reader(predicted: Predicted, agreement_f1: float, seed: int = _SEED) -> Predicted:
    """Return what one other reader would count in the window.

    A reader who agrees with the truth's readers at this F1 finds that share of their mitoses, and calls as many others so as he leaves out.

    Parameters
    ----------
    predicted : Predicted
        The number by the truth's readers.
    agreement_f1 : float
        F1 of single mitoses between two readers, 0 to 1.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    Predicted
        As many draws, of that reader's count.
    """
    rng = np.random.default_rng(seed + 2)
    kept = rng.binomial(predicted.numbers, agreement_f1)
    own = rng.poisson((1 - agreement_f1) * predicted.numbers)
    return replace(predicted, numbers=np.asarray(kept + own, np.int64))
