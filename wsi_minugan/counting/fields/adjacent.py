"""Fields that touch, as a microscope's stage moves from one to the next: grown from many beginnings, the best kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]

_BEAM = 24
"""So many unfinished placements are kept at each step."""
_WAYS = 12
"""So many next fields are tried of each."""
_SEEDS = 24
_SLACK = 1e-9


@dataclass(frozen=True)
class _Grown:
    """Some fields that touch: their centres, which points they hold, and what they are worth."""

    centers: FloatArray
    held: NDArray[np.bool_]
    worth: float


def grow_adjacent(
    places: FloatArray, weights: NDArray[np.int64], fields: int, seeds: FloatArray
) -> FloatArray:
    """Place discs of radius 1 so that each touches another, all hang together, and none overlap.

    Each step adds a disc that touches one of those there and has a point, or another disc, at its rim; the best of all unfinished
    placements are kept (beam search). No bound comes with it.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        x, y of distinct places of points, in radii of a disc.
    weights : ndarray of int, shape (n,)
        Number of points at each place.
    fields : int
        Number of discs to place.
    seeds : ndarray of float, shape (s, 2)
        x, y of first discs to try, the best first, in radii.

    Returns
    -------
    ndarray of float, shape (fields, 2)
        x, y of the discs' centres, in the order in which they were added, in radii.
    """
    tree = cKDTree(places)
    states = [_added(places, weights, tree, None, seed) for seed in seeds[:_SEEDS]]
    for _ in range(fields - 1):
        grown = [g for s in states for g in _grown(places, weights, tree, s)]
        states = _distinct(sorted(grown, key=lambda g: -g.worth))[:_BEAM]
    return max(states, key=lambda s: s.worth).centers


def _added(
    places: FloatArray, weights: NDArray[np.int64], tree: cKDTree, state: _Grown | None, center: FloatArray
) -> _Grown:
    held = np.zeros(len(places), bool) if state is None else state.held.copy()
    held[tree.query_ball_point(center, 1 + _SLACK)] = True
    centers = center[None] if state is None else np.concatenate([state.centers, center[None]])
    near = np.zeros(len(places), bool)
    near[np.concatenate([np.array(n, int) for n in tree.query_ball_point(centers, 3.0)])] = True
    # What is within reach of the next field breaks ties.
    return _Grown(centers, held, float(weights[held].sum() + 1e-3 * weights[near & ~held].sum()))


def _grown(places: FloatArray, weights: NDArray[np.int64], tree: cKDTree, state: _Grown) -> list[_Grown]:
    at = _touching(places[~state.held], state.centers)
    gaps = np.hypot(*(at[:, None] - state.centers).transpose(2, 0, 1)).min(axis=1)
    at = at[gaps >= 2 - 1e-7]
    gain = np.array([weights[n][~state.held[n]].sum() for n in tree.query_ball_point(at, 1 + _SLACK)])
    best = np.argsort(-gain, kind="stable")[:_WAYS]
    return [_added(places, weights, tree, state, at[k]) for k in best]


def _touching(points: FloatArray, centers: FloatArray) -> FloatArray:
    """Return centres of discs that touch one of `centers` and have a point, or another disc, at their rim, shape ``(m, 2)``."""
    turns = np.arange(6) * np.pi / 3
    around = 2 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    found = [(centers[:, None] + around).reshape(-1, 2)]
    for others, radius in ((points, 1.0), (centers, 2.0)):
        d = others[None] - centers[:, None]
        distance = np.hypot(d[..., 0], d[..., 1])
        which, other = np.nonzero((distance > abs(2 - radius) + _SLACK) & (distance < 2 + radius))
        d, distance = d[which, other], distance[which, other]
        # A hair inside of the rim, so that rounding does not lose the point.
        hair = 1e-7 if radius == 1 else 0.0
        along = (distance**2 + 4 - (radius - hair) ** 2) / (2 * distance)
        turn = np.arccos(np.clip(along / 2, -1, 1))
        angle = np.arctan2(d[:, 1], d[:, 0])
        for sign in (1, -1):
            way = np.stack([np.cos(angle + sign * turn), np.sin(angle + sign * turn)], axis=1)
            found.append(centers[which] + 2 * way)
    return np.concatenate(found)


def _distinct(states: list[_Grown]) -> list[_Grown]:
    """Return the states without those that hold the same points as one before."""
    seen: dict[bytes, _Grown] = {}
    for state in states:
        seen.setdefault(state.held.tobytes() + str(len(state.centers)).encode(), state)
    return list(seen.values())
