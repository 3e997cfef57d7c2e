"""The circle of a given area that holds the most mitoses, exactly.

Moving a circle until mitoses lie on its rim never loses one, so it is enough to look at circles whose rim passes through a
mitosis: around each, the others enter and leave at angles that are sorted and swept (critical positions; Chazelle and Lee 1986).
Where mitoses crowd, a search over ever smaller cells first rules out where the centre cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

FloatArray = NDArray[np.float64]
TissueFraction = Callable[[float, float, float], float]
"""(x, y, radius) in px to the share of the circle that is tissue, 0 to 1."""

_SLACK = 1e-9
_MAX_ARCS = 4_000_000
_MAX_CELLS = 4096
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Hotspot:
    """A placed circle.

    Attributes
    ----------
    center_x_px, center_y_px, radius_px : float
        The circle, in the frame of the points.
    mitoses : int
        Points inside or on it.
    tissue_fraction : float or None
        Share of the circle that is tissue, where known.
    """

    center_x_px: float
    center_y_px: float
    radius_px: float
    mitoses: int
    tissue_fraction: float | None


def find_hotspot(
    points_px: FloatArray, radius_px: float, tissue: TissueFraction | None = None
) -> Hotspot | None:
    """Return the circle that holds the most points.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses.
    radius_px : float
        Radius.
    tissue : callable, optional
        Share of a circle that is tissue.

    Returns
    -------
    Hotspot or None
        None where there are no points. The circle is centred on the smallest circle around its points. Of equal
        counts the one with more tissue wins, then the smallest (y, x).
    """
    points = np.asarray(points_px, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return None
    tree = cKDTree(points)
    best, positions = _best_positions(points, tree, radius_px)
    spots = [
        _spot(points[list(members)], radius_px, best, tissue)
        for members in _sets(tree, positions, radius_px, best)
    ]
    return min(spots, key=lambda s: (-(s.tissue_fraction or 0.0), s.center_y_px, s.center_x_px))


def _spot(members: FloatArray, radius_px: float, count: int, tissue: TissueFraction | None) -> Hotspot:
    # Points that a denormal number parts lead the search for the smallest circle astray.
    distinct = np.unique(np.round(members, 9), axis=0)
    around = shapely.minimum_bounding_circle(shapely.MultiPoint(distinct)) if len(distinct) > 1 else None
    left, top, right, bottom = around.bounds if around is not None else (*distinct[0], *distinct[0])
    x, y = (left + right) / 2, (top + bottom) / 2
    return Hotspot(x, y, radius_px, count, tissue(x, y, radius_px) if tissue else None)


def _sets(tree: cKDTree, positions: FloatArray, radius_px: float, best: int) -> set[tuple[int, ...]]:
    """Return the distinct sets of points that optimal circles hold."""
    found: Any = tree.query_ball_point(positions, radius_px * (1 + 10 * _SLACK), return_sorted=True)
    return {tuple(f) for f in found if len(f) >= best}


def _best_positions(points: FloatArray, tree: cKDTree, radius_px: float) -> tuple[int, FloatArray]:
    """Return the largest count and the critical positions that reach it, shape ``(m, 2)``."""
    reach = 2 * radius_px * (1 + _SLACK)
    if tree.count_neighbors(tree, reach) <= _MAX_ARCS:
        everywhere = (np.full(2, -np.inf), np.full(2, np.inf))
        sweeps = (
            (0, points[i], points[nb], everywhere) for i, nb in enumerate(tree.query_ball_tree(tree, reach))
        )
        return _best_of(sweeps, radius_px)
    return _best_of(_cell_sweeps(points, tree, radius_px), radius_px)


Sweep = tuple[int, FloatArray, FloatArray, tuple[FloatArray, FloatArray]]
"""Points certainly inside; the rim's point; those that may be inside; where the centre may lie (low, high corner)."""


def _best_of(sweeps: Iterator[Sweep], radius_px: float) -> tuple[int, FloatArray]:
    best, positions = 0, [np.zeros((0, 2))]
    for base, rim, others, (low, high) in sweeps:
        if base + len(others) < best:
            continue
        counts, at = _sweep(rim, others, radius_px)
        inside = ((at >= low) & (at <= high)).all(axis=1)
        if not inside.any():
            continue
        counts, at = counts[inside] + base, at[inside]
        top = int(counts.max())
        if top > best:
            best, positions = top, []
        if top == best:
            positions.append(at[counts == top])
    return best, np.concatenate(positions)


def _sweep(rim: FloatArray, others: FloatArray, radius_px: float) -> tuple[NDArray[np.int64], FloatArray]:
    """Return, for circles through `rim` at every event angle, the count of `others` in them, and their centres."""
    d = others - rim
    distance = np.hypot(d[:, 0], d[:, 1])
    same = distance <= _SLACK * radius_px
    reached = ~same & (distance <= 2 * radius_px * (1 + _SLACK))
    d, distance = d[reached], distance[reached]
    toward = np.arctan2(d[:, 1], d[:, 0])
    half = np.arccos(np.minimum(1.0, distance / (2 * radius_px))) + _SLACK
    start, end = toward - half, toward + half
    # Every arc stands twice, a turn apart. Arcs are at most half a turn, so no angle counts one twice, and from the latest
    # start on a whole turn of angles misses none: the largest count is exact, the others are lower bounds.
    angles = np.concatenate([[-3 * np.pi], start, start + 2 * np.pi, end, end + 2 * np.pi])
    steps = np.concatenate([[int(same.sum())], np.ones(2 * len(d), np.int64), -np.ones(2 * len(d), np.int64)])
    order = np.lexsort(
        (-steps, angles)
    )  # starts come before ends at one angle: the rim belongs to the circle
    began = steps[order] > 0
    counts, angles = np.cumsum(steps[order])[began], angles[order][began]
    return counts, rim + radius_px * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cell_sweeps(points: FloatArray, tree: cKDTree, radius_px: float) -> Iterator[Sweep]:
    """Yield the sweeps that remain after ruling out cells of centres by their upper bounds."""
    cells, side = _promising_cells(points, tree, radius_px)
    half = side * np.sqrt(0.5) * (1 + _SLACK)
    corner = side / 2 * (1 + _SLACK)
    for centre in cells:
        near = np.asarray(tree.query_ball_point(centre, radius_px + half), np.int64)
        distance = np.hypot(*(points[near] - centre).T)
        certain = distance < radius_px - half
        unsure = points[near[~certain]]
        box = (centre - corner, centre + corner)
        for rim in unsure:
            yield int(certain.sum()), rim, unsure, box


def _promising_cells(points: FloatArray, tree: cKDTree, radius_px: float) -> tuple[FloatArray, float]:
    """Return cell centres ``(m, 2)`` that may hold the best circle's centre, and the cells' side."""
    side = radius_px
    low, high = points.min(axis=0), points.max(axis=0)
    axes = [np.arange(a - radius_px, b + radius_px + side, side) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    for _ in range(_MAX_DEPTH):
        at_least = tree.query_ball_point(cells, radius_px * (1 - _SLACK), return_length=True).max(initial=0)
        at_most = tree.query_ball_point(
            cells, radius_px + side * np.sqrt(0.5) * (1 + _SLACK), return_length=True
        )
        cells = cells[at_most >= at_least]
        if 4 * len(cells) > _MAX_CELLS:
            break
        side /= 2
        offsets = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * side / 2
        cells = (cells[:, None, :] + offsets).reshape(-1, 2)
    return cells, side
