"""Objects put close together, yet apart, so that one small mask holds them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.segmentation.run_lengths import RunLengthMask, spread

_SHELF_PX = 1024


def shelved(boxes: NDArray[np.int64], which: NDArray[np.int64], gap_px: int = 1) -> NDArray[np.int64]:
    """Return by how many rows and columns to move each object, so that those wanted stand on shelves, the highest first.

    Parameters
    ----------
    boxes : ndarray of int64, shape (4, n)
        Each object's top, left, bottom, right (half-open), px.
    which : ndarray of int64, shape (m,)
        Indices of the objects wanted; at least one.
    gap_px : int
        Blank pixels between two objects.

    Returns
    -------
    ndarray of int64, shape (2, n)
        Rows and columns; 0 for objects that are not wanted.
    """
    top, left, bottom, right = boxes[:, which]
    height, width = bottom - top, right - left
    order = np.argsort(-height, kind="stable")
    starts = np.concatenate([[0], np.cumsum(width[order] + gap_px)])
    shelf = starts[:-1] // max(_SHELF_PX, int(width.max()))
    first, member = np.unique(shelf, return_index=True, return_inverse=True)[1:]
    tops = np.concatenate([[0], np.cumsum(height[order][first] + gap_px)])
    shift = np.zeros((2, boxes.shape[1]), np.int64)
    shift[:, which[order]] = tops[member] - top[order], starts[:-1] - starts[first][member] - left[order]
    return shift


def moved(found: RunLengthMask, wanted: NDArray[np.bool_], shift: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the mask of some objects, each moved to its place.

    Parameters
    ----------
    found : RunLengthMask
        The objects.
    wanted : ndarray of bool, shape (n,)
        Which of labels 1..n; at least one.
    shift : ndarray of int64, shape (2, n)
        Rows and columns by which each is moved.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        1 where an object is; as large as the moved objects need.
    """
    runs = found.of(wanted[found.labels - 1])
    down, right = shift[:, runs.labels - 1]
    height, width = (found.boxes[2:, : len(wanted)] + shift)[:, wanted].max(axis=1).tolist()
    mask = np.zeros((height, width), np.uint8)
    mask.reshape(-1)[spread((runs.rows + down) * width + runs.starts + right, runs.lengths)] = 1
    return mask
