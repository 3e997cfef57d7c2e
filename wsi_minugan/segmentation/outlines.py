"""Outlines of objects as polygons along the outside of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

GRID_PX = 0.01
"""QuPath keeps coordinates on this grid (design.md, QuPath's import rules)."""


def outlines(
    labels: NDArray[np.int32], wanted: NDArray[np.bool_], origin_yx_px: tuple[int, int]
) -> NDArray[np.object_]:
    """Return a polygon for each wanted object of a label array.

    Parameters
    ----------
    labels : ndarray of int32, shape (h, w)
        8-connected objects, numbered from 1.
    wanted : ndarray of bool, shape (n,)
        Which of labels 1..n to outline.
    origin_yx_px : tuple of int
        Where the array's first pixel lies in the frame.

    Returns
    -------
    ndarray of shapely geometries, shape (n,)
        Polygons (rarely multipolygons) in frame pixels, where pixel k spans k to k + 1; None where not wanted. OpenCV's contours
        run through pixel centres; growing them by half a pixel brings them to the pixels' outer edges.
    """
    out = np.full(len(wanted), None, object)
    chosen = np.concatenate([[False], wanted])
    mask = chosen[labels].astype(np.uint8)
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return out
    links = hierarchy[0]
    shells = [k for k in range(len(contours)) if links[k][3] < 0]
    shapes = np.empty(len(shells), np.object_)
    shapes[:] = [_centre_line(contours, links, k) for k in shells]
    # Grown near the origin and moved once, a shape gets the same floats whatever array it was found in.
    corners = np.floor(shapely.bounds(shapes)[:, :2])
    shapes = _moved(shapes, -corners)
    grown = _grown(shapes)
    # A ring that touches itself loses parts where it runs back on itself; grown as a line it keeps them. Several times as
    # fast as repairing it first.
    bad = np.flatnonzero(~shapely.is_valid(shapes))
    grown[bad] = shapely.union(grown[bad], shapely.buffer(shapely.boundary(shapes[bad]), 0.5, quad_segs=2))
    grown = _moved(grown, corners + np.array([origin_yx_px[1] + 0.5, origin_yx_px[0] + 0.5]))
    points = np.array([contours[k][0, 0] for k in shells])
    out[labels[points[:, 1], points[:, 0]] - 1] = grown
    return out


def _moved(shapes: NDArray[np.object_], by_xy: NDArray[np.float64]) -> NDArray[np.object_]:
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    return np.asarray(shapely.set_coordinates(shapes.copy(), xy + by_xy[owner]), np.object_)


def _grown(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.asarray(
        shapely.buffer(shapes, 0.5, cap_style="square", join_style="mitre", quad_segs=1), np.object_
    )


def _centre_line(contours: Sequence[Any], links: NDArray[np.int32], shell: int) -> shapely.Geometry:
    ring = contours[shell][:, 0, :].astype(np.float64)
    if len(ring) == 1:
        return shapely.Point(ring[0])
    if len(ring) == 2:
        return shapely.LineString(ring)
    holes, hole = [], links[shell][2]
    while hole >= 0:
        if len(contours[hole]) >= 4:
            holes.append(contours[hole][:, 0, :].astype(np.float64))
        hole = links[hole][0]
    return shapely.Polygon(ring, holes)


def to_level0(shapes: NDArray[np.object_], scale: float) -> NDArray[np.object_]:
    """Bring polygons to level-0 pixels, on the 0.01 px grid, valid.

    Parameters
    ----------
    shapes : ndarray of shapely geometries
        In analysis px.
    scale : float
        Level-0 pixels per analysis pixel.
    """
    return np.asarray(shapely.set_precision(scaled(shapes, scale), GRID_PX), object)


def scaled(shapes: NDArray[np.object_], scale: float) -> NDArray[np.object_]:
    """Bring polygons to level-0 pixels as they are; for files that need no grid."""
    if scale == 1.0:
        return shapes
    return np.asarray(shapely.transform(shapes, lambda xy: xy * scale), object)
