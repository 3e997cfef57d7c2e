"""How far readers agree: single mitoses, counts and scores.

Single mitoses: F1, which does not depend on who is called the truth. Counts: limits of agreement (Bland and Altman 1986) and the
intraclass correlation for absolute agreement of single readers, ICC(2,1) (Shrout and Fleiss 1979; interval of McGraw and Wong 1996).
Scores: Cohen's kappa with quadratic weights (Cohen 1968). Intervals without a formula resample cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from wsi_minugan.frozen import FrozenModel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
LEVEL = 0.95
_DRAWS = 2000
_SEED = 20_261_126


@dataclass(frozen=True)
class Matches:
    """Which detections of one image are matched to which truths.

    Attributes
    ----------
    pairs : ndarray of int64, shape (k, 2)
        Index of the detection and of the truth of each pair.
    false_positives, false_negatives : ndarray of int64, shapes (i,), (j,)
        Indices of detections and of truths left over, ascending.
    """

    pairs: IntArray
    false_positives: IntArray
    false_negatives: IntArray


def match(found_px: FloatArray, truth_px: FloatArray, radius_px: float) -> Matches:
    """Match as many detections to truths as can be, and of these choices the one with the least summed distance.

    Parameters
    ----------
    found_px, truth_px : ndarray of float, shapes (n, 2), (m, 2)
        x, y of detections and of truths, in one frame.
    radius_px : float
        Greatest distance of a match, itself included, in the unit of that frame.

    Returns
    -------
    Matches
        Pairs of indices, and what is left over on either side. Each detection and each truth has one partner at most.

    Examples
    --------
    >>> found = match(np.array([[0.0, 0.0], [50.0, 0.0]]), np.array([[3.0, 4.0]]), radius_px=5)
    >>> found.pairs.tolist(), found.false_positives.tolist()
    ([[0, 0]], [1])
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


class Figure(FrozenModel):
    """A figure with its interval."""

    value: float
    low: float | None = Field(description="None where there are too few cases.")
    high: float | None


class Limits(FrozenModel):
    """Differences of counts, the first reader's less the second's."""

    bias: Figure = Field(description="Mean difference.")
    lower: Figure = Field(description="Limit of agreement: 2.5 % of differences lie below.")
    upper: Figure = Field(description="Limit of agreement: 2.5 % of differences lie above.")


class Unmatched(FrozenModel):
    """A mitosis that only one of two readers marked."""

    case: str
    reader: str
    x_px: float
    y_px: float


class PairAgreement(FrozenModel):
    """Two readers."""

    first: str
    second: str
    cases: int
    both: int | None = Field(description="Mitoses that both marked; None where places were not compared.")
    first_only: int | None
    second_only: int | None
    f1: Figure | None
    limits: Limits | None = Field(description="None for fewer than three cases.")
    icc: Figure | None
    kappa: Figure | None = Field(description="Of the Nottingham score, quadratic weights.")
    counts: tuple[tuple[int, int], ...] = Field(description="Mitoses of each case by both readers.")
    unmatched: tuple[Unmatched, ...] = ()


class Agreement(FrozenModel):
    """Content of what `wsi-minugan agree` writes."""

    schema_version: int = 1
    level: float = LEVEL
    radius_um: float = Field(description="Greatest distance of a match.")
    readers: tuple[str, ...]
    cases: tuple[str, ...] = Field(description="Cases that all readers read.")
    left_out: tuple[str, ...] = Field((), description="Cases that some reader did not read.")
    icc: Figure | None = Field(description="Of the counts of all readers.")
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True)
class Reading:
    """One reader's reading of one case.

    Attributes
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px of the reader's scan.
    mpp : float
        um per pixel of these.
    score : int or None
        The case's Nottingham mitotic score, 1 to 3; None where it was not scored.
    """

    points_px: FloatArray
    mpp: float
    score: int | None


def compare(
    readings: dict[str, dict[str, Reading]],
    radius_um: float = 7.5,
    places: bool = True,
    left_out: Sequence[str] = (),
) -> Agreement:
    """Compare every two readers, and the counts of all readers.

    Parameters
    ----------
    readings : dict of str to dict of str to Reading
        By reader, then by case; all readers have the same cases.
    radius_um : float
        Greatest distance at which two marks are the same mitosis.
    places : bool
        Whether single mitoses are compared. They cannot be where each reader had another scan of the slide.
    left_out : sequence of str
        Cases that some reader did not read, to be told in the result.

    Returns
    -------
    Agreement
        Agreement of places, counts and scores for each pair of readers, and of all.
    """
    names = tuple(readings)
    cases = tuple(sorted(readings[names[0]]))
    counts = np.array([[len(readings[r][c].points_px) for r in names] for c in cases], float)
    pairs = [
        _pair((a, readings[a]), (b, readings[b]), cases, radius_um, places)
        for k, a in enumerate(names)
        for b in names[k + 1 :]
    ]
    return Agreement(
        radius_um=radius_um,
        readers=names,
        cases=cases,
        left_out=tuple(left_out),
        icc=icc(counts),
        pairs=tuple(pairs),
    )


def _pair(
    first: tuple[str, dict[str, Reading]],
    second: tuple[str, dict[str, Reading]],
    cases: Sequence[str],
    radius_um: float,
    places: bool,
) -> PairAgreement:
    (a, of_a), (b, of_b) = first, second
    table, unmatched = np.zeros((len(cases), 3), np.int64), []
    for k, case in enumerate(cases if places else ()):
        one, other = of_a[case], of_b[case]
        found = match(one.points_px * one.mpp, other.points_px * other.mpp, radius_um)
        table[k] = len(found.pairs), len(found.false_positives), len(found.false_negatives)
        unmatched += [_left(case, a, one, i) for i in found.false_positives]
        unmatched += [_left(case, b, other, i) for i in found.false_negatives]
    counts = np.array([[len(of_a[c].points_px), len(of_b[c].points_px)] for c in cases], np.int64)
    scored = [(of_a[c].score, of_b[c].score) for c in cases]
    scores = np.array([s for s in scored if None not in s], np.int64).reshape(-1, 2)
    both, first_only, second_only = table.sum(axis=0).tolist() if places else (None, None, None)
    return PairAgreement(
        first=a,
        second=b,
        cases=len(cases),
        both=both,
        first_only=first_only,
        second_only=second_only,
        f1=resampled(table, _f1) if places else None,
        limits=limits_of_agreement(counts),
        icc=icc(counts.astype(float)),
        kappa=_kappa(scores),
        counts=tuple((int(x), int(y)) for x, y in counts),
        unmatched=tuple(unmatched),
    )


def _kappa(scores: IntArray) -> Figure | None:
    """Return kappa with its interval; None where it is not defined, as where all scores are one."""
    if len(scores) < 2 or np.isnan(weighted_kappa(scores)):
        return None
    return resampled(scores, weighted_kappa)


def _left(case: str, reader: str, reading: Reading, index: int) -> Unmatched:
    x, y = reading.points_px[index].tolist()
    return Unmatched(case=case, reader=reader, x_px=x, y_px=y)


def _f1(table: IntArray) -> float:
    both, a, b = table.sum(axis=0)
    return 2 * both / (2 * both + a + b) if both + a + b else 1.0


def resampled(table: IntArray, figure: Callable[[IntArray], float]) -> Figure:
    """Return a figure with its percentile bootstrap interval over cases (Efron 1979).

    Parameters
    ----------
    table : ndarray of int, shape (cases, k)
        What the figure is made from, a row for each case.
    figure : callable
        Takes such a table, of any number of rows, and returns a number.

    Returns
    -------
    Figure
        The value, and the limits of its 95 % interval; no limits for fewer than three cases. The random numbers have a fixed seed.
    """
    value = float(figure(table))
    if len(table) < 3:
        return Figure(value=value, low=None, high=None)
    rng = np.random.default_rng(_SEED)
    drawn = [figure(table[rng.integers(0, len(table), len(table))]) for _ in range(_DRAWS)]
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(value=value, low=float(low), high=float(high))


def limits_of_agreement(counts: IntArray) -> Limits | None:
    """Return bias and limits of agreement of two readers' counts.

    Parameters
    ----------
    counts : ndarray of int, shape (cases, 2)
        Mitoses that each reader counted.

    Returns
    -------
    Limits or None
        The mean difference, first reader less second, and the limits between which 95 % of differences lie, each with its own
        interval. None for fewer than three cases.

    Notes
    -----
    Bland and Altman, Lancet 327, 1986. Differences are taken as normally distributed.

    Examples
    --------
    >>> found = limits_of_agreement(np.array([[10, 8], [20, 18], [5, 3]]))
    >>> found.bias.value, found.lower.value
    (2.0, 2.0)
    """
    n = len(counts)
    if n < 3:
        return None
    d = (counts[:, 0] - counts[:, 1]).astype(float)
    mean, sd, t = float(d.mean()), float(d.std(ddof=1)), float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    z = float(stats.norm.ppf(0.975))
    around = t * sd / np.sqrt(n)
    of_limit = t * sd * np.sqrt(1 / n + z**2 / (2 * (n - 1)))

    def figure(value: float, half: float) -> Figure:
        return Figure(value=value, low=float(value - half), high=float(value + half))

    return Limits(
        bias=figure(mean, around),
        lower=figure(mean - z * sd, of_limit),
        upper=figure(mean + z * sd, of_limit),
    )


def icc(counts: FloatArray) -> Figure | None:
    """Return the intraclass correlation for absolute agreement of single readers, ICC(2,1).

    Parameters
    ----------
    counts : ndarray of float, shape (cases, readers)
        Mitoses that each reader counted.

    Returns
    -------
    Figure or None
        1 where all readers count the same. None for fewer than three cases or two readers, and where all counts are one number.

    Notes
    -----
    The value is that of Shrout and Fleiss, Psychological Bulletin 86, 1979. Its interval is that of McGraw and Wong, Psychological
    Methods 1, 1996.

    Examples
    --------
    >>> icc(np.array([[10.0, 10.0], [20.0, 20.0], [5.0, 5.0]])).value
    1.0
    """
    n, k = counts.shape
    if n < 3 or k < 2:
        return None
    rows, columns, grand = counts.mean(axis=1), counts.mean(axis=0), counts.mean()
    msr = k * ((rows - grand) ** 2).sum() / (n - 1)
    msc = n * ((columns - grand) ** 2).sum() / (k - 1)
    mse = ((counts - rows[:, None] - columns[None] + grand) ** 2).sum() / ((n - 1) * (k - 1))
    total = msr + (k - 1) * mse + k * (msc - mse) / n
    if total <= 0:
        return None
    value = float((msr - mse) / total)
    if mse + msc == 0:
        return Figure(value=value, low=value, high=value)
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    v = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 / (k - 1) + (b * mse) ** 2 / ((n - 1) * (k - 1)))
    upper, lower = stats.f.ppf((1 + LEVEL) / 2, n - 1, v), stats.f.ppf((1 + LEVEL) / 2, v, n - 1)
    rest = k * msc + (k * n - k - n) * mse
    low = n * (msr - upper * mse) / (upper * rest + n * msr)
    high = n * (lower * msr - mse) / (rest + n * lower * msr)
    return Figure(value=value, low=float(low), high=float(high))


def weighted_kappa(scores: IntArray) -> float:
    """Return Cohen's kappa with quadratic weights of two readers' mitotic scores.

    Parameters
    ----------
    scores : ndarray of int, shape (cases, 2)
        Score that each reader gives, 1 to 3.

    Returns
    -------
    float
        1 is full agreement, 0 what chance gives, below 0 less than that. NaN where all scores are one number.

    Notes
    -----
    Cohen, Psychological Bulletin 70, 1968.

    Examples
    --------
    >>> weighted_kappa(np.array([[1, 1], [2, 2], [3, 3]]))
    1.0
    """
    levels = np.arange(1, 4)
    table = (scores[:, 0, None, None] == levels[:, None]) & (scores[:, 1, None, None] == levels[None])
    seen = table.mean(axis=0)
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0))
    weights = (levels[:, None] - levels[None]) ** 2
    expected = (weights * chance).sum()
    return float(1 - (weights * seen).sum() / expected) if expected else float("nan")
