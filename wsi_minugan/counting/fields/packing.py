"""Discs of one radius that do not overlap and hold the most points, with a bound that no placement can beat.

A disc's points are one of finitely many sets: those of the faces between the circles around the points. Each set is a column of an
integer program in which no point is counted twice (HiGHS, through `scipy.optimize`; columns are added as they are needed). Whether
the chosen sets have places that keep the discs apart is then looked for; where there are none, that is proved by halving boxes, and
the program is solved again without that choice. Lengths here are in radii of a disc.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from wsi_minugan.counting.fields.coverage import SLACK, BoolArray, FloatArray, coverable_sets
from wsi_minugan.counting.fields.program import Program

_SLACKS = (0.02, 1e-3, 1e-5, 1e-7, 0.0)
"""Room that a placement keeps to rims and neighbours, the best that can be had."""
_MOST_BOXES = 40_000
_TOUCH = 1e-7
"""What is wrong by less is not what keeps discs from a place."""
_ROUNDS = 40


@dataclass(frozen=True)
class Packing:
    """Discs that do not overlap, and the most that any discs could hold.

    Attributes
    ----------
    centers : ndarray of float, shape (m, 2)
        x, y of the discs that hold something, in the frame of the points. Empty where no placement was found.
    upper_bound : int
        No placement holds more points than this.
    """

    centers: FloatArray
    upper_bound: int


def pack(places: FloatArray, weights: NDArray[np.int64], discs: int, limit_s: float) -> Packing | None:
    """Place discs of radius 1 so that they hold the most points.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        x, y of distinct places of points, in radii of a disc.
    weights : ndarray of int, shape (n,)
        Number of points at each place.
    discs : int
        Greatest number of discs.
    limit_s : float
        Seconds of the thread's processor time after which no further choice is looked for.

    Returns
    -------
    Packing or None
        Where no time was left to place any disc, it holds none, and a bound. None where there are too many sets to try.
    """
    end = time.thread_time() + limit_s
    sets = coverable_sets(places, weights)
    if sets is None:
        return None
    program = Program(sets, discs, end)
    bound, exact = int(weights.sum()), True
    unproved: list[list[NDArray[np.int64]]] = []
    for _ in range(_ROUNDS):
        chosen, at_most = program.solve()
        if at_most < bound and exact:
            # Only a lower bound needs the proof that what was forbidden has no place.
            exact = all(_no_place(places, clash) for clash in unproved)
            unproved = []
            bound = at_most if exact else bound
        if chosen is None:
            break
        members = sets.members[chosen]
        centers, clashes = placed(places, members, sets.starts[chosen])
        if not clashes:
            return Packing(centers, bound)
        for clash in clashes:
            program.forbid(clash)
        unproved += clashes
    return Packing(np.zeros((0, 2)), bound)


def placed(
    places: FloatArray, members: BoolArray, starts: FloatArray
) -> tuple[FloatArray, list[list[NDArray[np.int64]]]]:
    """Move discs until each holds its points and none overlaps another.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        x, y of the points, in radii of a disc.
    members : ndarray of bool, shape (m, n)
        Which points each disc must hold.
    starts : ndarray of float, shape (m, 2)
        x, y of the discs' centres at first, in radii.

    Returns
    -------
    centers : ndarray of float, shape (m, 2)
        x, y of the discs' centres, in radii; places of the best try where there are clashes.
    clashes : list of list of ndarray of int, shape (k,)
        Groups of discs that found no place side by side; each disc by indices of some of its points. Empty where all is right.
    """
    centers, missed = _relax(places, members, starts, 0.0)
    if missed > SLACK:
        return centers, _clashes(places, members, centers)
    for slack in _SLACKS:
        roomy, missed = _relax(places, members, centers, slack)
        if missed <= SLACK:
            return roomy, []
    return centers, []


def _relax(
    places: FloatArray, members: BoolArray, starts: FloatArray, slack: float
) -> tuple[FloatArray, float]:
    residuals = _Residuals(places, members, starts, slack)
    if residuals.size == 0:
        return starts, 0.0
    solved = least_squares(
        residuals.values, starts.ravel(), jac=residuals.slopes, xtol=1e-12, ftol=1e-12, gtol=1e-12,
        max_nfev=60,
    )  # fmt: skip
    return np.asarray(solved.x, np.float64).reshape(-1, 2), float(solved.fun.max(initial=0.0))


def _clashes(places: FloatArray, members: BoolArray, centers: FloatArray) -> list[list[NDArray[np.int64]]]:
    """Return the groups of discs that press on each other where the squares of all that is wrong are least.

    There the forces of what is wrong balance, so what is wrong is what cannot be right together.
    """
    wrong = np.hypot(*(places[None] - centers[:, None]).transpose(2, 0, 1)) > 1 + _TOUCH
    needed = members & wrong
    apart = np.hypot(*(centers[:, None] - centers[None]).transpose(2, 0, 1)) < 2 - _TOUCH
    np.fill_diagonal(apart, False)
    count, group = connected_components(csr_matrix(apart), directed=False)
    found = []
    for k in range(count):
        discs = np.flatnonzero(group == k)
        if len(discs) > 1:
            found.append([np.flatnonzero(needed[d] if needed[d].any() else members[d]) for d in discs])
    # Where nothing balances the search stopped early: all of it is one choice.
    return found or [[np.flatnonzero(m) for m in members]]


class _Residuals:
    """By how much points lie outside of their discs, and discs inside each other."""

    def __init__(self, places: FloatArray, members: BoolArray, starts: FloatArray, slack: float) -> None:
        self._disc, point = np.nonzero(members)
        self._points = places[point]
        a, b = np.triu_indices(len(starts), 1)
        close = np.hypot(*(starts[a] - starts[b]).T) < 6
        self._a, self._b = a[close], b[close]
        self._slack = slack
        self.size = len(self._disc) + len(self._a)

    def values(self, x: FloatArray) -> FloatArray:
        """Return the residuals, shape ``(size,)``; 0 where all is right."""
        c = x.reshape(-1, 2)
        outside = np.hypot(*(c[self._disc] - self._points).T) - (1 - self._slack)
        overlap = 2 * (1 + self._slack) - np.hypot(*(c[self._a] - c[self._b]).T)
        return np.asarray(np.maximum(0.0, np.concatenate([outside, overlap])), np.float64)

    def slopes(self, x: FloatArray) -> FloatArray:
        """Return the residuals' derivatives, shape ``(size, 2 m)``."""
        c = x.reshape(-1, 2)
        out = np.zeros((self.size, x.size))
        on = self.values(x) > 0
        n = len(self._disc)
        rows = np.arange(n)
        way = _unit(c[self._disc] - self._points) * on[:n, None]
        for k in (0, 1):
            out[rows, 2 * self._disc + k] = way[:, k]
        rows = np.arange(n, self.size)
        way = _unit(c[self._a] - c[self._b]) * on[n:, None]
        for k in (0, 1):
            out[rows, 2 * self._a + k] = -way[:, k]
            out[rows, 2 * self._b + k] = way[:, k]
        return out


def _unit(v: FloatArray) -> FloatArray:
    return np.asarray(v / np.maximum(1e-12, np.hypot(v[:, 0], v[:, 1]))[:, None])


def _no_place(places: FloatArray, clash: list[NDArray[np.int64]]) -> bool:
    """Prove that discs that hold these points overlap, by halving the boxes that their centres can lie in."""
    low = np.array([[places[s].max(axis=0) - 1 for s in clash]])
    high = np.array([[places[s].min(axis=0) + 1 for s in clash]])
    for _ in range(80):
        alive = _possible(places, clash, low, high)
        low, high = low[alive], high[alive]
        if len(low) == 0:
            return True
        if 2 * len(low) > _MOST_BOXES:
            return False
        low, high = _halved(low, high)
    return False


def _possible(
    places: FloatArray, clash: list[NDArray[np.int64]], low: FloatArray, high: FloatArray
) -> BoolArray:
    """Return which boxes ``(b, discs, 2)`` may hold centres that reach their points and keep apart."""
    alive = np.ones(len(low), bool)
    for k, points in enumerate(clash):
        for p in places[points]:
            gap = np.maximum(0.0, np.maximum(low[:, k] - p, p - high[:, k]))
            alive &= np.hypot(gap[:, 0], gap[:, 1]) <= 1 + SLACK
        for q in range(k):
            reach = np.maximum(high[:, k] - low[:, q], high[:, q] - low[:, k])
            alive &= np.hypot(reach[:, 0], reach[:, 1]) >= 2 * (1 - SLACK)
    return alive


def _halved(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each box cut in two across its longest side."""
    count = len(low)
    longest = np.argmax((high - low).reshape(count, -1), axis=1)
    rows = np.arange(count)
    middle = ((low + high) / 2).reshape(count, -1)[rows, longest]
    below, above = high.copy().reshape(count, -1), low.copy().reshape(count, -1)
    below[rows, longest] = above[rows, longest] = middle
    shape = low.shape
    return np.concatenate([low, above.reshape(shape)]), np.concatenate([below.reshape(shape), high])


def overlapping(centers: FloatArray, diameter: float) -> bool:
    """Return whether any two discs overlap.

    Parameters
    ----------
    centers : ndarray of float, shape (m, 2)
        x, y of the discs.
    diameter : float
        Their diameter, in the same unit.

    Returns
    -------
    bool
        False also where discs only touch.
    """
    if len(centers) < 2:
        return False
    a, b = np.triu_indices(len(centers), 1)
    return bool((np.hypot(*(centers[a] - centers[b]).T) < diameter * (1 - 1e-7)).any())
