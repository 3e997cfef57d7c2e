"""Outlines of objects as polygons along the outside of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.geometry import GRID_PX
from wsi_minugan.segmentation.run_lengths import RunLengthMask
from wsi_minugan.segmentation.shelves import moved, shelved
from wsi_minugan.segmentation.tracing import trace

TOLERANCE_PX = 0.5
"""How far an outline may run from its pixels' edges, so that it needs a third of the points."""

"""QuPath keeps coordinates on this grid (design.md, QuPath's import rules)."""

_LARGE_PX = 2**21
"""Area of an object's box from which on it is traced by itself: its mask would take megabytes, however thin it is."""


def outlines(
    found: RunLengthMask, wanted: NDArray[np.bool_], origin_yx_px: tuple[int, int]
) -> NDArray[np.object_]:
    """Return a polygon for each wanted object.

    Parameters
    ----------
    found : RunLengthMask
        Objects of a mask.
    wanted : ndarray of bool, shape (n,)
        Which of labels 1..n to outline.
    origin_yx_px : tuple of int
        Where the mask's first pixel lies in the frame.

    Returns
    -------
    ndarray of shapely geometries, shape (n,)
        Valid polygons in frame pixels, where pixel k spans k to k + 1, nowhere further than `TOLERANCE_PX` from the pixels' outer
        edges; None where not wanted. The same floats wherever the mask begins, and whatever lies around an object.
    """
    out = np.full(len(wanted), None, object)
    top, left, bottom, right = found.boxes[:, : len(wanted)]
    large = wanted & ((bottom - top) * (right - left) >= _LARGE_PX)
    for k in np.flatnonzero(large).tolist():
        corner = (origin_yx_px[1] + int(left[k]), origin_yx_px[0] + int(top[k]))
        out[k] = _outline_alone(found, k, corner)
    if (wanted & ~large).any():
        _outline_together(found, wanted & ~large, origin_yx_px, out)
    return out


def _outline_alone(found: RunLengthMask, k: int, corner_xy_px: tuple[int, int]) -> Any:
    """Return the polygon of the object at index k, by its edges, whose box begins at a corner."""
    runs = found.of(found.labels == k + 1)
    top, left = runs.rows.min(), runs.starts.min()
    runs = replace(runs, rows=runs.rows - top, starts=runs.starts - left, ends=runs.ends - left)
    shapes = _simplified(*trace(runs))
    return shapely.set_coordinates(shapes, shapely.get_coordinates(shapes) + corner_xy_px)[0]


def _outline_together(
    found: RunLengthMask, wanted: NDArray[np.bool_], origin_yx_px: tuple[int, int], out: NDArray[np.object_]
) -> None:
    """Put the polygons of the wanted objects into `out`, by one mask that holds them all."""
    shift = _places(found.boxes, np.flatnonzero(wanted))
    mask = moved(found, wanted, shift)
    contours, parents = _contours(mask)
    # A contour's first point is the top left corner of its object's first pixel.
    heads = np.array([contours[k][0, 0] for k in np.flatnonzero(parents < 0).tolist()], np.int64) // 2
    firsts = (found.firsts + shift)[:, wanted]
    by_place = np.lexsort(firsts[::-1])
    owner = np.empty(len(heads), np.int64)
    owner[np.lexsort(heads.T)] = np.flatnonzero(wanted)[by_place]
    shapes = _simplified(contours, parents)
    corners = np.array([origin_yx_px[::-1]]) - shift[::-1, owner].T
    xy, index = shapely.get_coordinates(shapes, return_index=True)
    out[owner] = shapely.set_coordinates(shapes, xy + corners[index])


def _places(boxes: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return by how many rows and columns to move each object so that the wanted ones lie close together, yet apart.

    They are put on shelves by height; where that saves no space, as with rings in rings, they stay as they lie.
    """
    shift = shelved(boxes, which)
    top, left, bottom, right = boxes[:, which]
    extent = (boxes[2:] + shift)[:, which].max(axis=1)
    if extent.prod() < (bottom.max() - top.min()) * (right.max() - left.min()):
        return shift
    return np.broadcast_to(-np.array([[top.min()], [left.min()]]), shift.shape)


def _contours(mask: NDArray[np.uint8]) -> tuple[Sequence[Any], NDArray[np.int32]]:
    """Return the contours of a mask in half pixels, and for each hole the contour around it; -1 for the others."""
    found: Any = cv2.findContours(_corners(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return found[0], found[1][0][:, 3]


def _simplified(contours: Sequence[Any], parents: NDArray[np.int32]) -> NDArray[np.object_]:
    """Return the contours' polygons with fewer points, where that leaves them valid."""
    simple = [cv2.approxPolyDP(c, 2 * TOLERANCE_PX, True) for c in contours]
    shapes = _polygons([s if len(s) >= 3 else c for s, c in zip(simple, contours, strict=True)], parents)
    bad = ~shapely.is_valid(shapes)
    if bad.any():
        shapes[bad] = _polygons(contours, parents)[bad]
    return shapes


def _corners(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return which corners, edges and centres of pixels belong to a mask; shape ``(2 h + 1, 2 w + 1)``.

    Contours of this array run along the outer edges of pixels and never touch themselves, for even the thinnest neck is three wide.
    """
    out = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    out[1::2, 1::2] = mask
    return np.asarray(cv2.dilate(out, np.ones((3, 3), np.uint8), dst=out), np.uint8)


def _polygons(contours: Sequence[Any], parents: NDArray[np.int32]) -> NDArray[np.object_]:
    """Return a polygon for each contour without a parent; the others are holes."""
    count = len(contours)
    xy = np.concatenate(contours)[:, 0, :] / 2.0
    rings = shapely.linearrings(xy, indices=np.repeat(np.arange(count), [len(c) for c in contours]))
    shell = np.where(parents < 0, np.arange(count), parents)
    order = np.lexsort((parents >= 0, shell))
    _, owner = np.unique(shell[order], return_inverse=True)
    return np.asarray(shapely.polygons(rings[order], indices=owner), object)


def to_level0(shapes: NDArray[np.object_], scale: float) -> NDArray[np.object_]:
    """Bring polygons to level-0 pixels, snapped to a grid of 0.01 px, and make them valid again.

    Parameters
    ----------
    shapes : ndarray of shapely geometries
        In analysis px.
    scale : float
        Level-0 pixels per analysis pixel.

    Returns
    -------
    ndarray of shapely geometries
        Polygons or multipolygons, level-0 px.
    """
    return np.asarray(shapely.set_precision(scaled(shapes, scale), GRID_PX), object)


def scaled(shapes: NDArray[np.object_], scale: float) -> NDArray[np.object_]:
    """Bring polygons to level-0 pixels without snapping them; for files that need no grid.

    Parameters
    ----------
    shapes : ndarray of shapely geometries
        In analysis px.
    scale : float
        Level-0 pixels per analysis pixel.

    Returns
    -------
    ndarray of shapely geometries
        In level-0 px.
    """
    if scale == 1.0:
        return shapes
    return np.asarray(shapely.transform(shapes, lambda xy: xy * scale), object)
