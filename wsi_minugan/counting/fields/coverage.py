"""Which points a disc of radius 1 can hold: the faces between the circles around the points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
SLACK = 1e-9
_MOST_CELLS = 100_000_000
"""Most entries of the table of sets; beyond it no bound is sought but the simple one."""


@dataclass(frozen=True)
class Sets:
    """The sets of points that one disc can hold.

    Attributes
    ----------
    members : ndarray of bool, shape (m, n)
        For each set, which of the n places it holds.
    weights : ndarray of float, shape (m,)
        Number of points in each set; several points may share a place.
    starts : ndarray of float, shape (m, 2)
        x, y of a disc's centre at which, or near to which, it holds the set, in radii.
    places : ndarray of float, shape (n, 2)
        x, y of the places, in radii.
    """

    members: BoolArray
    weights: FloatArray
    starts: FloatArray
    places: FloatArray

    def room(self, which: NDArray[np.int64]) -> FloatArray:
        """Return the radius of the circle in which a disc's centre may lie anywhere while the disc holds a set.

        Parameters
        ----------
        which : ndarray of int, shape (k,)
            Indices of the sets.

        Returns
        -------
        ndarray of float, shape (k,)
            1 less the radius of the smallest circle around the set, in radii of a disc.
        """
        row, place = np.nonzero(self.members[which])
        around = shapely.multipoints(shapely.points(self.places)[place], indices=row)
        return np.asarray(1 - shapely.minimum_bounding_radius(around), np.float64)


def coverable_sets(places: FloatArray, weights: NDArray[np.int64]) -> Sets | None:
    """Return every set of points that some disc of radius 1 holds, or None where there are too many.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        x, y of distinct places, in radii of a disc.
    weights : ndarray of int, shape (n,)
        Number of points at each place.

    Returns
    -------
    Sets or None
        Each set once. Every set that no other one contains is among them. None where the table would be too large for the memory.
    """
    n = len(places)
    pairs = cKDTree(places).query_pairs(2 * (1 + SLACK), output_type="ndarray")
    if 8 * len(pairs) * n > _MOST_CELLS:
        return None
    at, first, second = _crossings(places, pairs)
    distance = np.hypot(at[:, None, 0] - places[:, 0], at[:, None, 1] - places[:, 1])
    inside = distance <= 1 + SLACK
    rows = np.arange(len(at))
    several = np.flatnonzero((np.abs(distance - 1) <= 10 * SLACK).sum(axis=1) > 2)
    found, where = [np.eye(n, dtype=bool)], [places]
    for with_first in (True, False):
        for with_second in (True, False):
            part = inside.copy()
            part[rows, first], part[rows, second] = with_first, with_second
            found.append(part)
            where.append(at)
    for k in several:
        more = _around(places, at[k], distance[k])
        found.append(more)
        where.append(np.tile(at[k], (len(more), 1)))
    return _distinct(np.concatenate(found), np.concatenate(where), places, weights)


def _crossings(
    places: FloatArray, pairs: NDArray[np.int64]
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Return where the circles around pairs of places cross, and the pairs' places."""
    i, j = pairs.T
    d = places[j] - places[i]
    distance = np.hypot(d[:, 0], d[:, 1])
    height = np.sqrt(np.maximum(0.0, 1 - (distance / 2) ** 2))
    away = np.stack([-d[:, 1], d[:, 0]], axis=1) * (height / distance)[:, None]
    middle = places[i] + d / 2
    return np.concatenate([middle + away, middle - away]), np.tile(i, 2), np.tile(j, 2)


def _around(places: FloatArray, at: FloatArray, distance: FloatArray) -> BoolArray:
    """Return the sets of the faces around a place where more than two circles cross, by the directions in which one leaves it."""
    rim = np.flatnonzero(np.abs(distance - 1) <= 10 * SLACK)
    angle = np.arctan2(*(places[rim] - at).T[::-1])
    turns = np.sort(np.concatenate([angle - np.pi / 2, angle + np.pi / 2]) % (2 * np.pi))
    ways = (turns + np.append(turns[1:], turns[0] + 2 * np.pi)) / 2
    sets = np.tile(distance <= 1 + SLACK, (len(ways), 1))
    sets[:, rim] = np.cos(ways[:, None] - angle) > 0
    return sets


def _distinct(members: BoolArray, at: FloatArray, places: FloatArray, weights: NDArray[np.int64]) -> Sets:
    """Return each set once, with the mean of the places where it was seen."""
    _, index, inverse = np.unique(_hashes(members), return_index=True, return_inverse=True)
    times = np.bincount(inverse)
    starts = np.stack([np.bincount(inverse, at[:, k]) / times for k in (0, 1)], axis=1)
    kept = members[index].any(axis=1)
    found = members[index][kept]
    return Sets(found, (found @ weights).astype(np.float64), starts[kept], places)


def _hashes(members: BoolArray) -> NDArray[np.uint64]:
    """Return a number for each row; rows that differ have the same with a chance of 2**-64."""
    packed = np.packbits(np.pad(members, ((0, 0), (0, -members.shape[1] % 64))), axis=1).view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, (2, packed.shape[1]), dtype=np.uint64) * 2 + 1
    mixed = packed * odd[0]
    return np.asarray(((mixed ^ (mixed >> 32)) * odd[1]).sum(axis=1, dtype=np.uint64))
