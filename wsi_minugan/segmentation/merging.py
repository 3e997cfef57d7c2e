"""Objects of blocks merged into those of the slide, exact for any block size.

A block labels its own pixels only. Objects that touch a border that another block shares are joined afterwards through the
labels along the borders, corners included, so an object is one object wherever the cuts fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from wsi_minugan.segmentation.objects import COLUMNS, BlockObjects, ObjectCut, centroids_of

Wanted = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class SlideObjects:
    """Objects of one class in a slide, numbered from 1 by their first pixel in raster order.

    Attributes
    ----------
    table : dict of str to ndarray of int64, shape (n,)
        As in `BlockObjects`; row k is number k + 1.
    numbers : tuple of ndarray of uint32, each of shape (labels + 1,)
        For each block, the number of each of its labels: ``numbers[b][label]``; 0 where the object was dropped.
    """

    table: dict[str, NDArray[np.int64]]
    numbers: tuple[NDArray[np.uint32], ...]

    @property
    def count(self) -> int:
        """Number of objects.

        Returns
        -------
        int
            0 or more.
        """
        return len(self.table["area_px"])

    def centroids(self) -> NDArray[np.float64]:
        """Return the centroids in analysis px as ``(n, 2)`` x, y; the centre of pixel 0 is at 0.5.

        Returns
        -------
        ndarray of float, shape (n, 2)
            In the order of the table.
        """
        return centroids_of(self.table)


def merge_objects(
    blocks: Sequence[BlockObjects], min_area_px: float, min_peak: int = 0, wanted: Wanted | None = None
) -> SlideObjects:
    """Join the objects of all blocks of a slide, drop the small, the weak and the unwanted, and number the rest.

    Parameters
    ----------
    blocks : sequence of BlockObjects
        Any order; blocks without tissue may be missing.
    min_area_px : float
        Least area of an object that is kept, analysis px.
    min_peak : int
        Least peak score of an object that is kept, 0 to 255.
    wanted : callable, optional
        Takes centroids, shape (n, 2), x, y in analysis px, and returns which objects are wanted, bool of shape (n,).

    Returns
    -------
    SlideObjects
        Numbered from 1, by the place of their first pixels.
    """
    return numbered_objects(join_objects(blocks), ObjectCut(min_area_px, min_peak), wanted)


def join_objects(blocks: Sequence[BlockObjects]) -> SlideObjects:
    """Join the objects of all blocks of a slide; none is dropped, and their order has no meaning yet.

    Parameters
    ----------
    blocks : sequence of BlockObjects
        Any order; blocks without tissue may be missing.

    Returns
    -------
    SlideObjects
        With each label's number by block.
    """
    offsets = np.cumsum([0, *(b.count for b in blocks)])
    total = int(offsets[-1])
    pairs = _touching_pairs(blocks, offsets)
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    count, group = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int32))
    columns = {c: np.concatenate([np.zeros(0, np.int64), *(b.table[c] for b in blocks)]) for c in COLUMNS}
    return SlideObjects(_grouped(columns, group, count), _by_block(group + 1, offsets))


def with_pieces(found: SlideObjects, parted: NDArray[np.bool_], pieces: BlockObjects) -> SlideObjects:
    """Put the pieces of some joined objects in their place.

    Parameters
    ----------
    found : SlideObjects
        Of `join_objects`.
    parted : ndarray of bool, shape (n,)
        Which of them are gone.
    pieces : BlockObjects
        Their pieces, measured in the slide's frame.

    Returns
    -------
    SlideObjects
        The numbers of the pieces' labels come last, as those of another block.
    """
    table = {c: np.concatenate([v[~parted], pieces.table[c]]) for c, v in found.table.items()}
    number = np.zeros(found.count + 1, np.uint32)
    left = int(np.count_nonzero(~parted))
    number[1:][~parted] = np.arange(1, left + 1)
    own = np.concatenate([[0], np.arange(left + 1, left + 1 + pieces.count)]).astype(np.uint32)
    return SlideObjects(table, (*(number[n] for n in found.numbers), own))


def numbered_objects(found: SlideObjects, cut: ObjectCut, wanted: Wanted | None = None) -> SlideObjects:
    """Drop the small, the weak and the unwanted, and number the rest.

    Parameters
    ----------
    found : SlideObjects
        Objects of a slide, in any order.
    cut : ObjectCut
        Which are kept.
    wanted : callable, optional
        Takes centroids, shape (n, 2), x, y in analysis px, and returns which objects are wanted, bool of shape (n,).

    Returns
    -------
    SlideObjects
        Numbered from 1, by the place of their first pixels.
    """
    table = found.table
    keep = cut.keeps(table["area_px"], table["peak"])
    if wanted is not None and found.count:
        keep &= wanted(found.centroids())
    order = np.lexsort((table["first_x"], table["first_y"]))
    order = order[keep[order]]
    number = np.zeros(found.count + 1, np.uint32)
    number[1:][order] = np.arange(1, len(order) + 1)
    return SlideObjects({c: v[order] for c, v in table.items()}, tuple(number[n] for n in found.numbers))


def _by_block(numbers: NDArray[np.int32], offsets: NDArray[np.int64]) -> tuple[NDArray[np.uint32], ...]:
    """Return the numbers of each block's labels; that of the background comes first."""
    return tuple(
        np.concatenate([np.zeros(1, np.uint32), numbers[a:b].astype(np.uint32)])
        for a, b in pairwise(offsets.tolist())
    )


def _grouped(
    columns: dict[str, NDArray[np.int64]], group: NDArray[np.int32], count: int
) -> dict[str, NDArray[np.int64]]:
    if count == 0:
        return columns
    order = np.lexsort((columns["first_x"], columns["first_y"], group))
    starts = np.searchsorted(group[order], np.arange(count))
    ufuncs = {
        "top": np.minimum,
        "left": np.minimum,
        "bottom": np.maximum,
        "right": np.maximum,
        "peak": np.maximum,
    }
    out = {}
    for name, values in columns.items():
        if name in {"first_y", "first_x"}:
            out[name] = values[order][starts]
        else:
            out[name] = ufuncs.get(name, np.add).reduceat(values[order], starts)
    return out


def _touching_pairs(blocks: Sequence[BlockObjects], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs of object indices that touch across borders, shape ``(n, 2)``."""
    corner = {(b.box.y_px, b.box.x_px): k for k, b in enumerate(blocks)}
    found = [np.zeros((0, 2), np.int64)]

    def add(k: int, other: int | None, here: NDArray[np.int32], there: NDArray[np.int32]) -> None:
        if other is not None:
            both = (here > 0) & (there > 0)
            found.append(np.stack([here[both] - 1 + offsets[k], there[both] - 1 + offsets[other]], axis=1))

    for k, block in enumerate(blocks):
        y, x, y_end, x_end = block.box.y_px, block.box.x_px, block.box.y_end_px, block.box.x_end_px
        for side, facing, other in (
            ("right", "left", corner.get((y, x_end))),
            ("bottom", "top", corner.get((y_end, x))),
        ):
            if other is None:
                continue
            here, there = block.borders[side], blocks[other].borders[facing]
            add(k, other, here, there)
            add(k, other, here[1:], there[:-1])
            add(k, other, here[:-1], there[1:])
        below_right = corner.get((y_end, x_end))
        if below_right is not None:
            add(k, below_right, block.borders["bottom"][-1:], blocks[below_right].borders["top"][:1])
        above_right = next(
            (b for c, b in corner.items() if c[1] == x_end and blocks[b].box.y_end_px == y), None
        )
        if above_right is not None:
            add(k, above_right, block.borders["top"][-1:], blocks[above_right].borders["bottom"][:1])
    return np.concatenate(found)
