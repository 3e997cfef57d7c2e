"""The circle of a given area that holds the most mitoses, exactly.

Moving a circle until mitoses lie on its rim never loses one, so it is enough to look at circles whose rim passes through a
mitosis: around each, the others enter and leave at angles that are sorted and swept (critical positions; Chazelle and Lee 1986).
Where mitoses crowd, a search over ever smaller cells first rules out where the centre cannot be; in the cells that are left,
only the crossings of rims are looked at.
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
_FEW_ARCS = 200_000
"""So many arcs are swept at once."""
_MAX_CELLS = 32_768
_MAX_DEPTH = 9
_ARC_COST, _CELL_COST = 30.0, 10_000.0
"""Time of an arc in a sweep, and of a cell, against that of one comparison of a crossing with a place."""


@dataclass(frozen=True)
class Hotspot:
    """A placed circle.

    Attributes
    ----------
    center_x_px, center_y_px, radius_px : float
        Centre and radius, in the frame of the points.
    mitoses : int
        Points inside the circle or on its rim.
    tissue_fraction : float or None
        Share of the circle that is tissue, 0 to 1. None where tissue is not known.
    """

    center_x_px: float
    center_y_px: float
    radius_px: float
    mitoses: int
    tissue_fraction: float | None


def find_hotspot(
    points_px: FloatArray, radius_px: float, tissue: TissueFraction | None = None
) -> Hotspot | None:
    """Return the circle that holds the most points: no other place of the circle holds more.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, in px of any frame.
    radius_px : float
        Radius of the circle, in the same px; its rim is part of it.
    tissue : callable, optional
        Takes x, y and radius of a circle, and returns the share of it that is tissue, 0 to 1.

    Returns
    -------
    Hotspot or None
        None where there are no points. The circle is centred on the smallest circle around its points. Of equal
        counts the one with more tissue wins, then the smallest (y, x).

    Notes
    -----
    The optimum lies where points meet the rim. These places are swept by angle (Chazelle and Lee, "On a circle placement problem",
    Computing 36, 1986).

    Examples
    --------
    >>> spot = find_hotspot(np.array([[0.0, 0.0], [6.0, 0.0], [90.0, 0.0]]), radius_px=5)
    >>> spot.mitoses, spot.center_x_px
    (2, 3.0)
    """
    points = np.asarray(points_px, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return None
    places, weights = np.unique(points, axis=0, return_counts=True)
    if shapely.minimum_bounding_radius(shapely.MultiPoint(places)) <= radius_px:
        return _spot(places, radius_px, len(points), tissue)
    cloud = _Cloud(places, weights.astype(np.int64), cKDTree(places), cKDTree(points), float(radius_px))
    best, positions = _best_positions(cloud)
    spots = [
        _spot(places[list(members)], radius_px, best, tissue) for members in _sets(cloud, positions, best)
    ]
    return min(spots, key=lambda s: (-(s.tissue_fraction or 0.0), s.center_y_px, s.center_x_px))


@dataclass(frozen=True)
class _Cloud:
    """Points, where several may share a place.

    Attributes
    ----------
    places, weights : ndarrays, shapes (n, 2), (n,)
        Distinct places, and how many points lie at each.
    tree, all_points : cKDTree
        Of the places, and of the points.
    radius_px : float
        Of the circle.
    """

    places: FloatArray
    weights: NDArray[np.int64]
    tree: cKDTree
    all_points: cKDTree
    radius_px: float


def _spot(members: FloatArray, radius_px: float, count: int, tissue: TissueFraction | None) -> Hotspot:
    # Points that a denormal number parts lead the search for the smallest circle astray.
    distinct = np.unique(np.round(members, 9), axis=0)
    around = shapely.minimum_bounding_circle(shapely.MultiPoint(distinct)) if len(distinct) > 1 else None
    left, top, right, bottom = around.bounds if around is not None else (*distinct[0], *distinct[0])
    x, y = (left + right) / 2, (top + bottom) / 2
    return Hotspot(x, y, radius_px, count, tissue(x, y, radius_px) if tissue else None)


def _sets(cloud: _Cloud, positions: FloatArray, best: int) -> set[tuple[int, ...]]:
    """Return the distinct sets of places that optimal circles hold."""
    reach = cloud.radius_px * (1 + 10 * _SLACK)
    found: Any = cloud.tree.query_ball_point(positions, reach, return_sorted=True)
    return {tuple(f) for f in found if cloud.weights[f].sum() >= best}


def _best_positions(cloud: _Cloud) -> tuple[int, FloatArray]:
    """Return the largest count and the critical positions that reach it, shape ``(m, 2)``."""
    reach = 2 * cloud.radius_px * (1 + _SLACK)
    arcs = int(cloud.tree.count_neighbors(cloud.tree, reach))
    if arcs > _FEW_ARCS:
        cells, side = _promising_cells(cloud)
        unsure = _counts(cloud.tree, cells, cloud.radius_px, side) - _counts(
            cloud.tree, cells, cloud.radius_px, -side
        )
        # A cell's vertices take about the cube of the circles that cross it, a sweep about its arcs.
        if len(cells) * _CELL_COST + float((unsure.astype(float) ** 3).sum()) < _ARC_COST * arcs:
            return _best_of(_cell_counts(cloud, cells, side))
    return _best_of(_sweeps(cloud, reach))


def _best_of(found: Iterator[tuple[NDArray[np.int64], FloatArray]]) -> tuple[int, FloatArray]:
    best, positions = 0, [np.zeros((0, 2))]
    for counts, at in found:
        top = int(counts.max(initial=0))
        if top > best:
            best, positions = top, []
        if top == best:
            positions.append(at[counts == top])
    return best, np.concatenate(positions)


def _sweeps(cloud: _Cloud, reach: float) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield the counts at the critical positions on each place's rim, for the places that can have the best."""
    best = 0
    for rim, near in zip(cloud.places, cloud.tree.query_ball_point(cloud.places, reach), strict=True):
        if cloud.weights[near].sum() >= best:
            counts, at = sweep(rim, cloud.places[near], cloud.weights[near], cloud.radius_px)
            best = max(best, int(counts.max()))
            yield counts, at


def sweep(
    rim: FloatArray, others: FloatArray, weights: NDArray[np.int64], radius_px: float
) -> tuple[NDArray[np.int64], FloatArray]:
    """Turn a circle about a place on its rim, and count at every angle where another place enters.

    Parameters
    ----------
    rim : ndarray of float, shape (2,)
        x, y of the place that stays on the rim, px.
    others : ndarray of float, shape (n, 2)
        x, y of the places within two radii, `rim` among them, px.
    weights : ndarray of int, shape (n,)
        Number of points at each of these places.
    radius_px : float
        Radius of the circle.

    Returns
    -------
    counts : ndarray of int, shape (m,)
        Number of points in the circle at each angle.
    centers : ndarray of float, shape (m, 2)
        x, y of the circle's centre at each angle, px.
    """
    d = others - rim
    distance = np.hypot(d[:, 0], d[:, 1])
    same = distance <= _SLACK * radius_px
    always = int(weights[same].sum())
    d, distance, weights = d[~same], distance[~same], weights[~same]
    if len(d) == 0:
        return np.array([always]), (rim - (radius_px, 0.0))[None]
    half = np.arccos(np.minimum(1.0, distance / (2 * radius_px))) + _SLACK
    start = (np.arctan2(d[:, 1], d[:, 0]) - half) % (2 * np.pi)
    end = start + 2 * half
    first, last = np.argsort(start), np.argsort(end)
    start, end = start[first], end[last]
    begun, ended = (np.concatenate([[0], np.cumsum(weights[k])]) for k in (first, last))
    # At a start: arcs begun, less those that have ended, and those begun before the turn that still last.
    counts = begun[np.searchsorted(start, start, "right")] - ended[np.searchsorted(end, start, "left")]
    counts += ended[-1] - ended[np.searchsorted(end, start + 2 * np.pi, "left")]
    return counts + always, rim + radius_px * np.stack([np.cos(start), np.sin(start)], axis=1)


def _cell_counts(
    cloud: _Cloud, cells: FloatArray, side: float
) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    """Yield the counts at the critical positions in each cell: where rims cross, and the places themselves.

    The cells that can hold the most come first, and those that can hold less than was found are left out.
    """
    half, corner = side * np.sqrt(0.5) * (1 + _SLACK), side / 2 * (1 + _SLACK)
    radius = cloud.radius_px
    most = _counts(cloud.all_points, cells, radius, side)
    best = 0
    for k in np.argsort(-most, kind="stable"):
        if most[k] < best:
            return
        centre = cells[k]
        # All distances at once take less time than a list of those that are near, which most are.
        distance = np.hypot(*(cloud.places - centre).T)
        certain = distance < radius - half
        rim = np.flatnonzero((distance <= radius + half) & ~certain)
        unsure, own = cloud.places[rim], cloud.places[distance <= half]
        at = np.concatenate([_crossings(unsure, radius), own])
        at = at[(np.abs(at - centre) <= corner).all(axis=1)]
        inside = np.hypot(*(at[:, None] - unsure).transpose(2, 0, 1)) <= radius * (1 + _SLACK)
        counts = inside @ cloud.weights[rim] + int(cloud.weights[certain].sum())
        best = max(best, int(counts.max(initial=0)))
        yield counts, at


def _crossings(places: FloatArray, radius_px: float) -> FloatArray:
    """Return where the circles of a radius around places cross, shape ``(m, 2)``."""
    i, j = np.triu_indices(len(places), 1)
    d = places[j] - places[i]
    distance = np.hypot(d[:, 0], d[:, 1])
    crossing = distance <= 2 * radius_px * (1 + _SLACK)
    i, d, distance = i[crossing], d[crossing], distance[crossing]
    height = np.sqrt(np.maximum(0.0, radius_px**2 - (distance / 2) ** 2))
    away = np.stack([-d[:, 1], d[:, 0]], axis=1) * (height / distance)[:, None]
    middle = places[i] + d / 2
    return np.concatenate([middle + away, middle - away])


def _promising_cells(cloud: _Cloud) -> tuple[FloatArray, float]:
    """Return centres ``(m, 2)`` of cells that may hold the best circle's centre, and the cells' side."""
    side = radius = cloud.radius_px
    low, high = cloud.places.min(axis=0), cloud.places.max(axis=0)
    axes = [np.arange(a - radius, b + radius + side, side) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    at_least = 0
    for _ in range(_MAX_DEPTH):
        at_least = max(
            at_least, int(_counts(cloud.all_points, cells, radius * (1 - _SLACK), 0.0).max(initial=0))
        )
        cells = cells[_counts(cloud.all_points, cells, radius, side) >= at_least]
        if 4 * len(cells) > _MAX_CELLS:
            break
        side /= 2
        offsets = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * side / 2
        cells = (cells[:, None, :] + offsets).reshape(-1, 2)
    return cells, side


def _counts(tree: cKDTree, cells: FloatArray, radius_px: float, side_px: float) -> NDArray[np.int64]:
    """Return how many points are so near to cells' centres that they can be (negative side: must be) near to all of the cell."""
    reach = radius_px + side_px * np.sqrt(0.5) * (1 + _SLACK)
    found: NDArray[np.int64] = tree.query_ball_point(cells, max(0.0, reach), return_length=True)
    return found
