"""Contours of large objects, straight from their runs: what they cost goes with their edge, not with the area of their box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.segmentation.run_lengths import RunLengthMask

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int64)
"""x, y of a step in each direction; the next one is a turn to the right."""


def trace(found: RunLengthMask) -> tuple[list[NDArray[np.int32]], NDArray[np.int32]]:
    """Return the contours of one object, point for point those that OpenCV's ``findContours`` finds in the mask of its corners.

    Parameters
    ----------
    found : RunLengthMask
        The runs of one 8-connected object, in raster order.

    Returns
    -------
    list of ndarray of int32, shape (n, 1, 2)
        x, y in half pixels of the mask; the outer contour first, then the holes, the last in raster order first.
    ndarray of int32, shape (contours,)
        For each hole the index of the contour around it, which is 0; -1 for the outer one.
    """
    begins, ends, heading = _edges(found)
    following = _following(begins, ends, heading)
    loops = [_contour(loop, ends, heading) for loop in _loops(following)]
    outer = [points for points, is_hole in loops if not is_hole]
    holes = sorted((p for p, is_hole in loops if is_hole), key=lambda p: (-p[0, 0, 1], -p[0, 0, 0]))
    return outer + holes, np.array([-1] * len(outer) + [0] * len(holes), np.int32)


def _edges(found: RunLengthMask) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners (x, y) at which the object's edges begin and end, and their headings; the object lies to the left."""
    rows, starts, ends = (v.astype(np.int64) for v in (found.rows, found.starts, found.ends))
    level, left, right, above = _levels(rows, starts, ends)
    corners = [
        (starts, rows, starts, rows + 1, _SOUTH),
        (ends, rows + 1, ends, rows, _NORTH),
        (left[above], level[above], right[above], level[above], _EAST),
        (right[~above], level[~above], left[~above], level[~above], _WEST),
    ]
    begin = np.concatenate([np.stack([x, y], axis=1) for x, y, *_ in corners])
    end = np.concatenate([np.stack([x, y], axis=1) for _, _, x, y, _ in corners])
    return begin, end, np.repeat([c[4] for c in corners], [len(c[0]) for c in corners])


def _levels(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the edges between rows: y, left and right x, and whether the object lies above."""
    # Between two rows an edge lies where just one of them has a run: from each odd one of all runs' ends, in order, to the next.
    y = np.concatenate([rows, rows, rows + 1, rows + 1])
    x = np.concatenate([starts, ends, starts, ends])
    of_upper = np.arange(len(y)) >= 2 * len(rows)
    order = np.lexsort((x, y))
    y, x, of_upper = y[order], x[order], of_upper[order]
    above = np.cumsum(of_upper)[0::2] % 2 == 1
    there = x[0::2] < x[1::2]
    return y[0::2][there], x[0::2][there], x[1::2][there], above[there]


def _following(
    begins: NDArray[np.int64], ends: NDArray[np.int64], heading: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the edge that comes after each; where pixels touch by a corner the turn to the right, which keeps them together."""
    width = int(begins[:, 0].max()) + 1
    key = 4 * (begins[:, 1] * width + begins[:, 0]) + heading
    order = np.argsort(key)
    corner = 4 * (ends[:, 1] * width + ends[:, 0])
    ranked = key[order]
    rightwards = np.searchsorted(ranked, corner + (heading + 1) % 4)
    turns = ranked[np.minimum(rightwards, len(ranked) - 1)] == corner + (heading + 1) % 4
    only = np.searchsorted(ranked, corner)
    return np.asarray(order[np.where(turns, rightwards, only)], np.int64)


def _loops(following: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the edges of each closed way, in order."""
    after, seen, loops = following.tolist(), bytearray(len(following)), []
    for first in range(len(after)):
        loop, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            loop.append(edge)
            edge = after[edge]
        if loop:
            loops.append(np.array(loop))
    return loops


def _contour(
    loop: NDArray[np.int64], ends: NDArray[np.int64], heading: NDArray[np.int64]
) -> tuple[NDArray[np.int32], bool]:
    """Return a way's points, from its first one in raster order on, and whether it goes around a hole."""
    corner, comes, goes = 2 * ends[loop], heading[loop], np.roll(heading[loop], -1)
    first = int(np.lexsort((corner[:, 0], corner[:, 1]))[0])
    corner, comes, goes = (np.roll(v, -first, axis=0) for v in (corner, comes, goes))
    right, left = goes == (comes + 1) % 4, goes == (comes + 3) % 4
    # At an inner corner OpenCV goes from the middle of one pixel's edge to that of the next.
    points = np.stack(
        [corner - _STEPS[comes] * right[:, None], corner + _STEPS[goes] * right[:, None]], axis=1
    )
    there = np.stack([right | left, right], axis=1)
    xy = points[there]
    xy = xy[np.any(xy != np.roll(xy, -1, axis=0), axis=1)]
    before, after = np.sign(xy - np.roll(xy, 1, axis=0)), np.sign(np.roll(xy, -1, axis=0) - xy)
    return xy[np.any(before != after, axis=1)][:, None].astype(np.int32), bool(right[0])
