"""Polygons as a file holds them: valid rings on QuPath's grid of 0.01 px."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.geometry import GRID_PX


def as_written(polygons: Iterable[shapely.Geometry]) -> NDArray[np.object_]:
    """Return polygons as a file holds them; an object's area and centroid are those of its polygon as written.

    So QuPath's area, ours and that of a count of the file are one number, and a recount finds the same places to the last bit.

    Parameters
    ----------
    polygons : iterable of shapely geometry
        Polygons or multipolygons, in the file's px.

    Returns
    -------
    ndarray of object, shape (n,)
        The same on the grid of 0.01 px, exterior rings counter-clockwise.
    """
    snapped = [shapely.orient_polygons(single(p)) for p in polygons]
    # Without their grid: GEOS would round what is computed of them, such as centroids, to it.
    return np.asarray(shapely.set_precision(np.array(snapped, object), 0.0), object)


def centroids_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the centroids of polygons as `read_marks` finds them; shape ``(n, 2)``.

    Parameters
    ----------
    shapes : ndarray of object, shape (n,)
        Polygons of `as_written`.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y in their px.
    """
    xy: NDArray[np.float64] = shapely.get_coordinates(shapely.centroid(shapes)).reshape(-1, 2)
    return xy


def single(polygon: shapely.Geometry) -> shapely.Geometry:
    """Return a valid polygon on QuPath's grid; a multipolygon of one part becomes a polygon.

    Parameters
    ----------
    polygon : shapely geometry
        A polygon or multipolygon, in px.

    Returns
    -------
    shapely Polygon or MultiPolygon
        On the grid of 0.01 px.
    """
    snapped = shapely.set_precision(polygon, GRID_PX)
    parts = [p for p in shapely.get_parts(snapped) if p.geom_type == "Polygon" and p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def rectangle(x_px: float, y_px: float, width_px: float, height_px: float) -> shapely.Geometry:
    """Return a rectangle about its centre.

    Parameters
    ----------
    x_px, y_px : float
        Its centre.
    width_px, height_px : float
        Its size.

    Returns
    -------
    shapely Polygon
        In the same px.
    """
    return shapely.box(x_px - width_px / 2, y_px - height_px / 2, x_px + width_px / 2, y_px + height_px / 2)


def circle(x_px: float, y_px: float, radius_px: float) -> shapely.Geometry:
    """Return a circle as a polygon of 256 corners.

    Parameters
    ----------
    x_px, y_px : float
        Its centre.
    radius_px : float
        Its radius.

    Returns
    -------
    shapely Polygon
        In the same px.
    """
    return shapely.buffer(shapely.Point(x_px, y_px), radius_px, quad_segs=64)
