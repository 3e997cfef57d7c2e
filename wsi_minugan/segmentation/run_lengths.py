"""Objects as runs of pixels: what a mask costs then goes with its objects' edges, not with the area of the block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from wsi_minugan.geometry import Box


@dataclass(frozen=True)
class RunLengthMask:
    """The 8-connected objects of a mask, as its rows' runs of pixels in raster order.

    Attributes
    ----------
    shape : tuple of int
        The mask's ``(h, w)``.
    rows, starts, ends : ndarray of int32, shape (n,)
        A run is the pixels ``[start, end)`` of a row; a blank pixel or the mask's edge lies before and after it.
    labels : ndarray of int32, shape (n,)
        Which object a run belongs to, from 1 on; the same for the same mask everywhere.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    labels: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pixels of each run.

        Returns
        -------
        ndarray of int64, shape (runs,)
            At least 1 each.
        """
        return (self.ends - self.starts).astype(np.int64)

    @property
    def count(self) -> int:
        """Number of objects.

        Returns
        -------
        int
            The highest label.
        """
        return int(self.labels.max(initial=0))

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """All pixels' places in the flattened mask, run by run.

        Returns
        -------
        ndarray of int64, shape (pixels,)
            Row times width plus column.
        """
        return spread(self.rows.astype(np.int64) * self.shape[1] + self.starts, self.lengths)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """Row and column of each object's first pixel in raster order; shape ``(2, count)``.

        Returns
        -------
        ndarray of int64, shape (2, count)
            In px of the mask.
        """
        first = np.zeros(self.count + 1, np.int64)
        first[self.labels[::-1]] = np.arange(len(self.labels))[::-1]  # what is assigned last stays
        return np.stack([self.rows[first[1:]], self.starts[first[1:]]]).astype(np.int64)

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """Each object's top, left, bottom, right (half-open); shape ``(4, count)``.

        Returns
        -------
        ndarray of int64, shape (4, count)
            In px of the mask.
        """
        out = np.empty((4, self.count + 1), np.int64)
        for side, ufunc, values, least in (
            (0, np.minimum, self.rows, self.shape[0]),
            (1, np.minimum, self.starts, self.shape[1]),
            (2, np.maximum, self.rows + 1, 0),
            (3, np.maximum, self.ends, 0),
        ):
            out[side] = least
            ufunc.at(out[side], self.labels, values.astype(np.int64))
        return out[:, 1:]

    @cached_property
    def at_border(self) -> NDArray[np.bool_]:
        """Whether an object touches the mask's border; shape ``(count,)``.

        Returns
        -------
        ndarray of bool, shape (count,)
            One value for each label.
        """
        height, width = self.shape
        on_it = (self.rows == 0) | (self.rows == height - 1) | (self.starts == 0) | (self.ends == width)
        out = np.zeros(self.count + 1, np.bool_)
        out[self.labels[on_it]] = True
        return out[1:]

    def of(self, chosen: NDArray[np.bool_]) -> RunLengthMask:
        """Return some of the runs.

        Parameters
        ----------
        chosen : ndarray of bool, shape (runs,)
            True for each run to keep.

        Returns
        -------
        RunLengthMask
            Of the same shape; labels are not numbered anew.
        """
        return RunLengthMask(
            self.shape, self.rows[chosen], self.starts[chosen], self.ends[chosen], self.labels[chosen]
        )

    def paint(self, image: NDArray[Any], values: Any) -> None:
        """Set the runs' pixels of a contiguous image ``(h, w)`` to a value, or to one value a run.

        Parameters
        ----------
        image : ndarray of any dtype, shape (h, w)
            Of the mask's shape. It is changed in place, so it must be contiguous.
        values : scalar or ndarray of a dtype that the image holds, shape (runs,)
            What to set: one for all runs, or one for each.
        """
        image.reshape(-1)[self.pixels] = np.repeat(values, self.lengths) if np.ndim(values) else values


def spread(starts: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the whole numbers from each start on, as many as its length, one start after the other.

    Parameters
    ----------
    starts : ndarray of int, shape (n,)
        First number of each part.
    lengths : ndarray of int64, shape (n,)
        How many numbers each part has.

    Returns
    -------
    ndarray of int64, shape (sum of lengths,)
        The parts, one after the other.

    Examples
    --------
    >>> spread(np.array([3, 10]), np.array([2, 3])).tolist()
    [3, 4, 10, 11, 12]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def run_length_mask(mask: NDArray[np.bool_]) -> RunLengthMask:
    """Return the objects of a mask as runs of pixels.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
        True where a pixel belongs to an object.

    Returns
    -------
    RunLengthMask
        8-connected objects, numbered from 1.

    Examples
    --------
    >>> found = run_length_mask(np.array([[True, False, False], [False, True, False], [False, False, False]]))
    >>> found.count, found.lengths.tolist()
    (1, [1, 1])
    """
    height, width = mask.shape
    pitch = width + 1
    # A blank pixel before the first row and after each, so that no run goes on in the next row.
    padded = np.zeros(height * pitch + 1, np.bool_)
    padded[1:].reshape(height, pitch)[:, :width] = mask
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    starts, ends = edges[0::2], edges[1::2]
    rows = starts // pitch
    labels = _connected(starts, ends, pitch)
    starts, ends = starts - rows * pitch, ends - rows * pitch
    return RunLengthMask(
        mask.shape, rows.astype(np.int32), starts.astype(np.int32), ends.astype(np.int32), labels
    )


def _connected(starts: NDArray[np.int64], ends: NDArray[np.int64], pitch: int) -> NDArray[np.int32]:
    """Return the object of each run, where those of neighbouring rows touch if a corner does."""
    if len(starts) == 0:
        return np.zeros(0, np.int32)
    first = np.searchsorted(ends, starts + pitch, "left")
    touching = np.searchsorted(starts, ends + pitch, "right") - first
    below = spread(first, touching)
    graph = csr_array(
        (np.ones(len(below), np.bool_), below, np.concatenate([[0], np.cumsum(touching)])),
        shape=(len(starts), len(starts)),
    )
    labels: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels + np.int32(1)


def joined(parts: Sequence[tuple[Box, RunLengthMask]]) -> RunLengthMask:
    """Return the runs of several blocks as those of the frame, by the labels that they have; cut runs become one again.

    Parameters
    ----------
    parts : sequence of (Box, RunLengthMask)
        Each block with its runs; blocks do not overlap.

    Returns
    -------
    RunLengthMask
        In the frame that the boxes count from.
    """
    rows = np.concatenate([r.rows + np.int32(b.y_px) for b, r in parts])
    starts = np.concatenate([r.starts + np.int32(b.x_px) for b, r in parts])
    ends = np.concatenate([r.ends + np.int32(b.x_px) for b, r in parts])
    labels = np.concatenate([r.labels for _, r in parts])
    order = np.lexsort((starts, rows))
    rows, starts, ends, labels = (v[order] for v in (rows, starts, ends, labels))
    begins, stops = np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_)
    begins[1:] = stops[:-1] = (rows[1:] != rows[:-1]) | (starts[1:] != ends[:-1])
    shape = max(b.y_end_px for b, _ in parts), max(b.x_end_px for b, _ in parts)
    return RunLengthMask(shape, rows[begins], starts[begins], ends[stops], labels[begins])


def joined_objects(blocks: Iterable[tuple[Box, RunLengthMask]], which: NDArray[np.int64]) -> RunLengthMask:
    """Return some objects of several blocks, joined as by `joined` and labelled by their places among those wanted, from 1 on.

    Parameters
    ----------
    blocks : iterable of (Box, RunLengthMask)
        Each block with its runs; label k + 1 is the object of index k in all of them.
    which : ndarray of int, shape (n,)
        Indices of the objects wanted, ascending; at least one.

    Returns
    -------
    RunLengthMask
        In the frame that the boxes count from.
    """
    parts = []
    for box, runs in blocks:
        index = runs.labels.astype(np.int64) - 1
        place = np.minimum(np.searchsorted(which, index), len(which) - 1)
        own = which[place] == index
        parts.append((box, replace(runs.of(own), labels=(place[own] + 1).astype(np.int32))))
    return joined(parts)


def combined(
    shape: tuple[int, int], parts: Sequence[RunLengthMask], labels: NDArray[np.int32]
) -> RunLengthMask:
    """Return the runs of several masks of one frame in raster order.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the frame, px.
    parts : sequence of RunLengthMask
        Their objects do not touch each other.
    labels : ndarray of int32, shape (runs of all parts,)
        The label that each run gets, part by part.

    Returns
    -------
    RunLengthMask
        Of all parts together.
    """
    rows, starts, ends = (np.concatenate([getattr(p, n) for p in parts]) for n in ("rows", "starts", "ends"))
    order = np.lexsort((starts, rows))
    return RunLengthMask(shape, rows[order], starts[order], ends[order], labels[order])


def cut_out(found: RunLengthMask, box: Box) -> RunLengthMask:
    """Return what of a frame's runs lies in a box, in the box's own px; labels stay as they are.

    Parameters
    ----------
    found : RunLengthMask
        Runs of the frame, in raster order.
    box : Box
        Part of the frame.

    Returns
    -------
    RunLengthMask
        Of the box's shape.
    """
    first, end = np.searchsorted(found.rows, [box.y_px, box.y_end_px])
    starts = np.maximum(found.starts[first:end], box.x_px)
    ends = np.minimum(found.ends[first:end], box.x_end_px)
    there = starts < ends
    rows, labels = found.rows[first:end][there] - np.int32(box.y_px), found.labels[first:end][there]
    x = np.int32(box.x_px)
    return RunLengthMask((box.height_px, box.width_px), rows, starts[there] - x, ends[there] - x, labels)
