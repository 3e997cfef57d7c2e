"""Touching nuclei split: in their block those that lie inside of it, after merging those that reach its border."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.merging import SlideObjects, with_pieces
from wsi_minugan.segmentation.objects import BlockObjects, measure_objects
from wsi_minugan.segmentation.run_lengths import RunLengthMask, cut_out, joined_objects
from wsi_minugan.segmentation.splitting import Splitting, split_touching

RunsOf = Callable[[int], RunLengthMask]


def split_inside(found: RunLengthMask, rule: Splitting) -> RunLengthMask:
    """Split the touching nuclei of a block that do not reach its border, for these are whole.

    Parameters
    ----------
    found : RunLengthMask
        The block's nuclei.
    rule : Splitting
        Where touching nuclei are split.

    Returns
    -------
    RunLengthMask
        With pieces in the place of what fell apart.
    """
    return split_touching(found, ~found.at_border, rule).applied(found)


def split_crossing(
    blocks: Sequence[BlockObjects], found: SlideObjects, runs_of: RunsOf, rule: Splitting
) -> tuple[SlideObjects, RunLengthMask | None]:
    """Split the touching nuclei that reach a block's border, now that their parts are joined.

    Parameters
    ----------
    blocks : sequence of BlockObjects
        The objects of all blocks of the plan.
    found : SlideObjects
        The same, joined.
    runs_of : callable
        Takes a block's index, and returns its runs with the block's own labels.
    rule : Splitting
        Where touching nuclei are split.

    Returns
    -------
    found : SlideObjects
        With pieces in the place of what fell apart.
    pieces : RunLengthMask or None
        All pieces, in analysis px; None where none fell apart.
    """
    which = _whole_ones(blocks, found, rule)
    if len(which) == 0:
        return found, None
    runs = joined_objects(_numbered(blocks, found, runs_of, which), which)
    done = split_touching(runs, np.ones(len(which), bool), rule)
    if not done.split.any():
        return found, None
    gone = np.zeros(found.count, bool)
    gone[which[done.split]] = True
    frame = Box(0, 0, *done.pieces.shape)
    return with_pieces(found, gone, measure_objects(done.pieces, None, frame)), done.pieces


def _whole_ones(blocks: Sequence[BlockObjects], found: SlideObjects, rule: Splitting) -> NDArray[np.int64]:
    """Return the indices of the joined objects that reach a block's border and are of a size that is split."""
    crossing = np.zeros(found.count, bool)
    for block, numbers in zip(blocks, found.numbers, strict=True):
        crossing[numbers[1:][block.crossing].astype(np.int64) - 1] = True
    boxes = np.stack([found.table[side] for side in ("top", "left", "bottom", "right")])
    return np.flatnonzero(crossing & rule.may_split(found.table["area_px"], boxes))


def _numbered(
    blocks: Sequence[BlockObjects], found: SlideObjects, runs_of: RunsOf, which: NDArray[np.int64]
) -> Iterator[tuple[Box, RunLengthMask]]:
    """Yield the blocks that hold any of the objects, with their runs and the objects' numbers."""
    wanted = np.zeros(found.count + 1, bool)
    wanted[which + 1] = True
    for k, (block, numbers) in enumerate(zip(blocks, found.numbers, strict=True)):
        if wanted[numbers].any():
            runs = runs_of(k)
            yield block.box, replace(runs, labels=numbers[runs.labels].astype(np.int32))


def pieces_by_block(
    boxes: Sequence[Box], pieces: RunLengthMask | None, numbers: NDArray[np.uint32]
) -> dict[int, RunLengthMask]:
    """Return what lies in each block of the pieces that are kept.

    Parameters
    ----------
    boxes : sequence of Box
        The plan's blocks, analysis px.
    pieces : RunLengthMask or None
        Of `split_crossing`.
    numbers : ndarray of uint32, shape (pieces + 1,)
        The number of each piece; 0 where it was dropped.

    Returns
    -------
    dict of int to RunLengthMask
        In the block's own px; labels are numbers.
    """
    if pieces is None:
        return {}
    kept = numbers[pieces.labels] > 0
    numbered = replace(pieces.of(kept), labels=numbers[pieces.labels[kept]].astype(np.int32))
    return {k: cut_out(numbered, box) for k, box in enumerate(boxes)}
