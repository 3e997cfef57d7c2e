"""The patches of one block: those that a neighbour left in scratch, and the others read and put through the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.pipeline.scratch import Scratch
from wsi_minugan.segmentation import classes
from wsi_minugan.segmentation.blend import Blender
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.slides.checks.blanks import WatchedView

_STRIPS_AHEAD = 3


def _shared(plan: SlidePlan, box: Box, patch: tuple[int, int]) -> bool:
    """Return whether a patch also reaches another block."""
    reach = plan.grid.box(*patch).grown(classes.REACH_PX).clipped(plan.frame.box)
    return reach.clipped(box) != reach


def blend_left_over(
    blender: Blender, plan: SlidePlan, box: Box, wanted: list[tuple[int, int]], scratch: Scratch
) -> list[tuple[int, int]]:
    """Blend the patches that neighbouring blocks left behind, and return those still to be predicted.

    A patch's scores are the same whoever makes them, so it does not matter which block comes first.

    Parameters
    ----------
    blender : Blender
        It takes the scores.
    plan : SlidePlan
        The slide's plan.
    box : Box
        The block, analysis px.
    wanted : list of tuple of int
        Row and column of each patch that the block needs.
    scratch : Scratch
        Where scores of patches lie.

    Returns
    -------
    list of tuple of int
        Row and column of each patch that nobody has predicted yet.
    """
    fresh, side_px = [], plan.grid.patch_px
    for patch in wanted:
        scores = scratch.patches.load(*patch, side_px) if _shared(plan, box, patch) else None
        if scores is None:
            fresh.append(patch)
        else:
            blender.add(*patch, scores)
    return fresh


def predict_into(
    blender: Blender,
    plan: SlidePlan,
    wanted: list[tuple[int, int]],
    view: WatchedView,
    predictor: Predictor,
    box: Box,
    scratch: Scratch,
) -> float:
    """Predict the wanted patches, batch by batch, and return the seconds spent in the network.

    Reading goes ahead of the network, and blending follows it, each in a thread: neither a GPU nor, where another core is
    idle, a CPU's one thread waits for them.

    Parameters
    ----------
    blender : Blender
        It takes the scores.
    plan : SlidePlan
        The slide's plan.
    wanted : list of tuple of int
        Row and column of each patch to predict.
    view : WatchedView
        Pixels of the slide, in analysis px.
    predictor : Predictor
        The model.
    box : Box
        The block, analysis px.
    scratch : Scratch
        It keeps the scores of patches that also reach another block.

    Returns
    -------
    float
        Time in the network, s.
    """
    forward_s = 0.0

    def keep(places: list[tuple[int, int]], scores: NDArray[np.uint8]) -> None:
        for ij, patch_scores in zip(places, scores, strict=True):
            blender.add(*ij, patch_scores)
            if _shared(plan, box, ij):
                scratch.patches.save(*ij, patch_scores)

    ahead = _STRIPS_AHEAD if predictor.device == "cuda" else 1
    with ThreadPoolExecutor(1, "blend") as follower:
        blended: Future[None] | None = None
        patches = _patches(plan.grid, wanted, view, ahead)
        while batch := list(islice(patches, predictor.windows_at_once)):
            begin = time.perf_counter()
            scores = predictor.predict([pixels for _, pixels in batch], plan.stain_map)
            forward_s += time.perf_counter() - begin
            if blended is not None:
                blended.result()  # one batch waits at most, and what failed is told
            blended = follower.submit(keep, [ij for ij, _ in batch], scores)
        if blended is not None:
            blended.result()
    return forward_s


def _patches(
    grid: PatchGrid, wanted: list[tuple[int, int]], view: WatchedView, ahead: int
) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
    """Yield patches with their pixels, row by row."""
    for row, (strip_box, strip) in strips(grid, rows_of(wanted), view, ahead):
        for ij in row:
            yield ij, strip[grid.box(*ij).slices_within(strip_box)]


def rows_of(patches: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group patches into runs of neighbours in one row, so that a run is read at once.

    Parameters
    ----------
    patches : list of tuple of int
        Row and column of each patch, in any order.

    Returns
    -------
    list of list of tuple of int
        Runs in raster order; a gap in a row begins a new one.
    """
    runs: list[list[tuple[int, int]]] = []
    for ij in sorted(patches):
        if runs and runs[-1][-1] == (ij[0], ij[1] - 1):
            runs[-1].append(ij)
        else:
            runs.append([ij])
    return runs


def strips(
    grid: PatchGrid, rows: list[list[tuple[int, int]]], view: WatchedView, ahead: int
) -> Iterator[tuple[list[tuple[int, int]], tuple[Box, NDArray[np.uint8]]]]:
    """Yield each row of patches with its pixels; up to `ahead` rows are read in a thread meanwhile, in order.

    Parameters
    ----------
    grid : PatchGrid
        The slide's patches.
    rows : list of list of tuple of int
        Of `rows_of`.
    view : WatchedView
        Pixels of the slide, in analysis px.
    ahead : int
        How many rows are read before they are asked for.

    Yields
    ------
    row : list of tuple of int
        Row and column of each patch.
    strip : (Box, ndarray of uint8)
        The place of the row in analysis px, and its RGB pixels, shape ``(h, w, 3)``.
    """
    with ThreadPoolExecutor(1, "decode") as decoder:
        coming = deque(decoder.submit(_read_strip, grid, row, view) for row in rows[:ahead])
        for k, row in enumerate(rows):
            if k + ahead < len(rows):
                coming.append(decoder.submit(_read_strip, grid, rows[k + ahead], view))
            yield row, coming.popleft().result()


def _read_strip(
    grid: PatchGrid, row: list[tuple[int, int]], view: WatchedView
) -> tuple[Box, NDArray[np.uint8]]:
    first, last = grid.box(*row[0]), grid.box(*row[-1])
    box = Box(first.y_px, first.x_px, first.height_px, last.x_end_px - first.x_px)
    return box, view.read(box)
