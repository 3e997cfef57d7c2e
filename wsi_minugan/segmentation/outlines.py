"""Outlines of objects as polygons along the outside of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

TOLERANCE_PX = 0.5
"""How far an outline may run from its pixels' edges, so that it needs a third of the points."""

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
        Valid polygons in frame pixels, where pixel k spans k to k + 1, nowhere further than `TOLERANCE_PX` from the pixels' outer
        edges; None where not wanted. The same floats wherever the array begins.
    """
    out = np.full(len(wanted), None, object)
    if not wanted.any():
        return out
    mask = np.concatenate([[False], wanted])[labels].astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    part = np.s_[top : top + height, left : left + width]
    labels, mask = labels[part], mask[part]
    found: Any = cv2.findContours(_corners(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours: Sequence[Any] = found[0]
    parents: NDArray[np.int32] = found[1][0][:, 3]
    simple = [cv2.approxPolyDP(c, 2 * TOLERANCE_PX, True) for c in contours]
    shapes = _polygons([s if len(s) >= 3 else c for s, c in zip(simple, contours, strict=True)], parents)
    bad = ~shapely.is_valid(shapes)
    if bad.any():
        shapes[bad] = _polygons(contours, parents)[bad]
    # A contour's first point is the top left corner of its object's first pixel.
    first = np.array([contours[k][0, 0] for k in np.flatnonzero(parents < 0).tolist()]) // 2
    corner = np.array([origin_yx_px[1] + left, origin_yx_px[0] + top], np.float64)
    xy = shapely.get_coordinates(shapes) + corner
    out[labels[first[:, 1], first[:, 0]] - 1] = shapely.set_coordinates(shapes, xy)
    return out


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
