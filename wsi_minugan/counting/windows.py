"""Windows of a given shape that hold the most mitoses: circles and rectangles, several that do not overlap, held to tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsi_minugan.counting.hotspot import find_hotspot, sweep
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.geometry import UM2_PER_MM2

FloatArray = NDArray[np.float64]
SLACK = 1e-9
_MOST_TIES = 200
_BEST_TISSUE = 0.005


@dataclass(frozen=True)
class Shape:
    """A window's shape.

    Attributes
    ----------
    width_px, height_px : float
        Its extent; of a circle both are the diameter.
    circle : bool
        Whether it is a circle, or a rectangle along the axes.
    """

    width_px: float
    height_px: float
    circle: bool = True

    @property
    def radius_px(self) -> float:
        """Radius of the circle, or half the rectangle's diagonal.

        Returns
        -------
        float
            px; no point of the window lies further from its centre.
        """
        return self.width_px / 2 if self.circle else math.hypot(self.width_px, self.height_px) / 2

    def holds(self, points_px: FloatArray, x_px: float, y_px: float) -> NDArray[np.bool_]:
        """Return which points lie in the window centred at x, y, its rim included; shape ``(n,)``.

        Parameters
        ----------
        points_px : ndarray of float, shape (n, 2)
            x, y of points.
        x_px, y_px : float
            Centre of the window.

        Returns
        -------
        ndarray of bool, shape (n,)
            True for points in the window.
        """
        d = np.abs(points_px - (x_px, y_px))
        if self.circle:
            return np.asarray(np.hypot(d[:, 0], d[:, 1]) <= self.width_px / 2 * (1 + SLACK))
        half = np.array([self.width_px, self.height_px]) / 2
        return np.asarray((d <= half * (1 + SLACK)).all(axis=1))

    def apart(self, centers_px: FloatArray, x_px: float, y_px: float) -> NDArray[np.bool_]:
        """Return which of the windows at `centers_px` do not overlap the one at x, y; touching is no overlap.

        Parameters
        ----------
        centers_px : ndarray of float, shape (m, 2)
            x, y of the other windows' centres.
        x_px, y_px : float
            Centre of the window.

        Returns
        -------
        ndarray of bool, shape (m,)
            True for windows that do not overlap this one.
        """
        d = np.abs(np.reshape(centers_px, (-1, 2)) - (x_px, y_px))
        if self.circle:
            return np.asarray(np.hypot(d[:, 0], d[:, 1]) >= self.width_px * (1 - SLACK))
        return np.asarray((d >= np.array([self.width_px, self.height_px]) * (1 - SLACK)).any(axis=1))


def circle_of(area_mm2: float, mpp: float) -> Shape:
    """Return the circle of an area, in pixels of `mpp`.

    Parameters
    ----------
    area_mm2 : float
        Area of the circle.
    mpp : float
        um per pixel.

    Returns
    -------
    Shape
        A circle whose diameter is in these pixels.

    Examples
    --------
    >>> round(circle_of(2.0, mpp=0.25).radius_px)
    3192
    """
    diameter = 2 * math.sqrt(area_mm2 * UM2_PER_MM2 / math.pi) / mpp
    return Shape(diameter, diameter)


def rectangle_of(area_mm2: float, mpp: float, aspect: float) -> Shape:
    """Return the rectangle of an area whose width is `aspect` times its height, in pixels of `mpp`.

    Parameters
    ----------
    area_mm2 : float
        Area of the rectangle.
    mpp : float
        um per pixel.
    aspect : float
        Width over height.

    Returns
    -------
    Shape
        A rectangle along the axes, its sides in these pixels.
    """
    height = math.sqrt(area_mm2 * UM2_PER_MM2 / aspect) / mpp
    return Shape(aspect * height, height, circle=False)


@dataclass(frozen=True)
class Window:
    """A placed window.

    Attributes
    ----------
    x_px, y_px : float
        Its centre, in the frame of the points.
    mitoses : int
        Points inside or on its rim.
    tissue_fraction : float or None
        Share of it that was analysed, where known.
    """

    x_px: float
    y_px: float
    mitoses: int
    tissue_fraction: float | None = None


def find_windows(
    points_px: FloatArray,
    shape: Shape,
    most: int = 1,
    tissue: TissueRaster | None = None,
    min_tissue: float = 0.0,
    clear_of: FloatArray | None = None,
) -> list[Window]:
    """Return the window with the most points, then the one with the most that does not overlap it, and so on.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses.
    shape : Shape
        Shape of every window, in the px of the points.
    most : int
        How many windows at most; those that would hold nothing are left out.
    tissue : TissueRaster, optional
        What was analysed; of equal counts the window with more of it wins.
    min_tissue : float
        Least share of a window that must have been analysed. Where none reaches it, the windows with the greatest share
        there is are taken. Windows are then placed on the raster's cells, unless the best of all has enough.
    clear_of : ndarray of float, shape (m, 2), optional
        Centres of windows that are there already, and that none may overlap.

    Returns
    -------
    list of Window
        In the order in which they were found.
    """
    taken = np.zeros((0, 2)) if clear_of is None else clear_of
    left = np.asarray(points_px, np.float64).reshape(-1, 2)
    found: list[Window] = []
    while len(left) and len(found) < most:
        earlier = np.concatenate([taken, np.reshape([(w.x_px, w.y_px) for w in found], (-1, 2))])
        best = _best(left, shape, earlier, tissue)
        if tissue is not None and best is not None and (best.tissue_fraction or 0.0) < min_tissue:
            best = _on_raster(left, shape, earlier, tissue, min_tissue)
        if best is None or best.mitoses == 0:
            break
        found.append(best)
        left = left[~shape.holds(left, best.x_px, best.y_px)]
    return found


def _best(
    points: FloatArray, shape: Shape, earlier: FloatArray, tissue: TissueRaster | None
) -> Window | None:
    if shape.circle and len(earlier) == 0:
        share = None if tissue is None else lambda x, y, _: tissue.share(shape.circle, *_size(shape), x, y)
        spot = find_hotspot(points, shape.radius_px, share)
        if spot is None:
            return None
        return Window(spot.center_x_px, spot.center_y_px, spot.mitoses, spot.tissue_fraction)
    at, counts = _circles(points, shape, earlier) if shape.circle else _rectangles(points, shape, earlier)
    if len(at) == 0:
        return None
    best = int(counts.max())
    ties = _centred(points, shape, earlier, at[counts == best])
    windows = [
        Window(x, y, best, None if tissue is None else tissue.share(shape.circle, *_size(shape), x, y))
        for x, y in ties.tolist()
    ]
    return min(windows, key=lambda w: (-(w.tissue_fraction or 0.0), w.y_px, w.x_px))


def _size(shape: Shape) -> tuple[float, float]:
    return shape.width_px, shape.height_px


def _centred(points: FloatArray, shape: Shape, earlier: FloatArray, at: FloatArray) -> FloatArray:
    """Return the places moved to the middle of what their windows hold, where they do not overlap others there; each set once."""
    seen: dict[bytes, FloatArray] = {}
    for x, y in at[:_MOST_TIES]:
        held = shape.holds(points, x, y)
        middle = _middle(points[held], shape)
        free = shape.apart(earlier, *middle).all() and shape.holds(points[held], *middle).all()
        seen.setdefault(held.tobytes(), np.array(middle if free else (x, y)))
    return np.stack(list(seen.values()))


def _middle(points: FloatArray, shape: Shape) -> tuple[float, float]:
    if not shape.circle or len(points) == 1:
        low, high = points.min(axis=0), points.max(axis=0)
    else:
        low, high = np.reshape(shapely.minimum_bounding_circle(shapely.MultiPoint(points)).bounds, (2, 2))
    x, y = (low + high) / 2
    return float(x), float(y)


def _circles(points: FloatArray, shape: Shape, earlier: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the critical places of circles that are clear of earlier ones, and how many points they hold."""
    tree, radius = cKDTree(points), shape.radius_px
    reach = 2 * radius * (1 + SLACK)
    found = [_meetings(earlier, 2 * radius, earlier, 2 * radius)]
    for rim, near in zip(points, tree.query_ball_point(points, reach), strict=True):
        _, at = sweep(rim, points[near], np.ones(len(near), np.int64), radius)
        found += [at, _meetings(rim[None], radius, earlier, 2 * radius)]
    at = np.concatenate(found)
    at = at[np.all([shape.apart(at, x, y) for x, y in earlier], axis=0)] if len(earlier) else at
    counts = tree.query_ball_point(at, radius * (1 + SLACK), return_length=True)
    return at, np.asarray(counts, np.int64)


def _meetings(a: FloatArray, radius_a: float, b: FloatArray, radius_b: float) -> FloatArray:
    """Return where circles around `a` and around `b` cross, shape ``(m, 2)``."""
    d = (b[None] - a[:, None]).reshape(-1, 2)
    start = np.repeat(a, len(b), axis=0)
    distance = np.hypot(d[:, 0], d[:, 1])
    crossing = (distance > 0) & (distance <= radius_a + radius_b) & (distance >= abs(radius_a - radius_b))
    d, start, distance = d[crossing], start[crossing], distance[crossing]
    along = (distance**2 + radius_a**2 - radius_b**2) / (2 * distance)
    height = np.sqrt(np.maximum(0.0, radius_a**2 - along**2))
    middle = start + d * (along / distance)[:, None]
    away = np.stack([-d[:, 1], d[:, 0]], axis=1) * (height / distance)[:, None]
    return np.concatenate([middle + away, middle - away])


def _rectangles(
    points: FloatArray, shape: Shape, earlier: FloatArray
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the centres of rectangles along the axes that are clear of earlier ones, and how many points they hold."""
    size = np.array(_size(shape))
    corners = earlier - size / 2
    found, best = [], 0
    for left in _edges(points[:, 0], size[0], corners[:, 0]):
        column = np.sort(
            points[
                (points[:, 0] >= left - SLACK * size[0]) & (points[:, 0] <= left + size[0] * (1 + SLACK)), 1
            ]
        )
        if len(column) < max(1, best):
            continue
        beside = corners[np.abs(corners[:, 0] - left) < size[0] * (1 - SLACK), 1]
        tops = _edges(column, size[1], beside)
        tops = tops[(np.abs(tops[:, None] - beside) >= size[1] * (1 - SLACK)).all(axis=1)]
        counts = np.searchsorted(column, tops + size[1] * (1 + SLACK), "right") - np.searchsorted(
            column, tops - SLACK * size[1], "left"
        )
        top = int(counts.max(initial=0))
        if top >= max(1, best):
            best = top
            found += [(left + size[0] / 2, t + size[1] / 2, top) for t in tops[counts == top]]
    table = np.array(found, np.float64).reshape(-1, 3)
    return table[:, :2], table[:, 2].astype(np.int64)


def _edges(values: FloatArray, length: float, taken: FloatArray) -> FloatArray:
    """Return where a window's near edge can lie so that moving it on would lose a point, or meet a window."""
    if len(taken) == 0:
        return np.unique(values)
    return np.unique(np.concatenate([values, values - length, taken + length, taken - length]))


def _on_raster(
    points: FloatArray, shape: Shape, earlier: FloatArray, tissue: TissueRaster, min_tissue: float
) -> Window | None:
    """Return the best window whose centre is that of a cell, and that has enough tissue, or as much as there is."""
    margin = 2 * shape.radius_px
    part, x, y = tissue.part(points.min(axis=0) - margin, points.max(axis=0) + margin)
    if part.size == 0:
        return None
    shares = shares_of(part, shape, tissue.side_px)
    for ex, ey in earlier:
        shares[~_clear(shape, x, y, ex, ey)] = -1.0
    enough = shares >= min(min_tissue, float(shares.max()) - _BEST_TISSUE)
    counts = np.where(enough & (shares >= 0), counts_at(points, shape, x, y), -1)
    best = int(counts.max())
    if best < 0:
        return None
    rows, columns = np.nonzero(counts == best)
    k = np.lexsort((x[columns], y[rows], -np.round(shares[rows, columns], 6)))[0]
    at = float(x[columns[k]]), float(y[rows[k]])
    return Window(*at, best, tissue.share(shape.circle, *_size(shape), *at))


def _clear(shape: Shape, x: FloatArray, y: FloatArray, other_x: float, other_y: float) -> NDArray[np.bool_]:
    dx, dy = np.abs(x - other_x)[None], np.abs(y - other_y)[:, None]
    if shape.circle:
        return np.asarray(dx**2 + dy**2 >= shape.width_px**2)
    return np.asarray((dx >= shape.width_px) | (dy >= shape.height_px))


def shares_of(part: NDArray[np.bool_], shape: Shape, side_px: float) -> NDArray[np.float32]:
    """Return, for windows at the centres of cells, the share of their cells that are set.

    Parameters
    ----------
    part : ndarray of bool, shape (rows, columns)
        Which cells are set.
    shape : Shape
        Form and size of the window, in the px of `side_px`.
    side_px : float
        Side of a cell, in the px of the window.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        Shares, 0 to 1. Cells beyond the raster count as not set.
    """
    kernel = _kernel(shape, side_px)
    summed = cv2.filter2D(part.astype(np.float32), cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed / kernel.sum(), np.float32)


def _kernel(shape: Shape, side_px: float) -> NDArray[np.float32]:
    reach_x, reach_y = (int(v / 2 / side_px) for v in _size(shape))
    x, y = np.arange(-reach_x, reach_x + 1) * side_px, np.arange(-reach_y, reach_y + 1) * side_px
    if not shape.circle:
        return np.ones((len(y), len(x)), np.float32)
    return (x[None] ** 2 + y[:, None] ** 2 <= shape.radius_px**2).astype(np.float32)


def counts_at(points: FloatArray, shape: Shape, x_px: FloatArray, y_px: FloatArray) -> NDArray[np.int32]:
    """Return how many points each window holds, for windows centred on a raster of places.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
        x, y of points, px.
    shape : Shape
        Shape of all windows, in the same px.
    x_px, y_px : ndarray of float, shapes (columns,), (rows,)
        x of the columns and y of the rows of centres, ascending.

    Returns
    -------
    ndarray of int32, shape (rows, columns)
        Number of points in each window.
    """
    counts = np.zeros((len(y_px), len(x_px)), np.int32)
    for px, py in points:
        rows = slice(*np.searchsorted(y_px, (py - shape.height_px / 2, py + shape.height_px / 2)))
        columns = slice(*np.searchsorted(x_px, (px - shape.width_px / 2, px + shape.width_px / 2)))
        if shape.circle:
            d2 = (x_px[columns] - px)[None] ** 2 + (y_px[rows] - py)[:, None] ** 2
            counts[rows, columns] += d2 <= shape.radius_px**2
        else:
            counts[rows, columns] += 1
    return counts
