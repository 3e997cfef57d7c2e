"""Outlines of a slide's objects: whole ones as their blocks drew them, those across borders from their joined runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.pipeline.scratch import Scratch
from wsi_minugan.segmentation.merging import SlideObjects
from wsi_minugan.segmentation.outlines import outlines
from wsi_minugan.segmentation.run_lengths import joined_objects


def shapes_by_row(
    plan: SlidePlan, scratch: Scratch, found: SlideObjects, name: str
) -> Iterator[tuple[int, NDArray[np.object_]]]:
    """Yield, for each row of blocks, the first object's index and the outlines of the objects that begin there.

    Objects are numbered by their first pixel, so each row of blocks holds one range of numbers.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    scratch : Scratch
        It holds the blocks' outlines, runs and numbers.
    found : SlideObjects
        The slide's objects of the class.
    name : {"mitoses", "nuclei"}
        The class.

    Yields
    ------
    start : int
        Index of the first object, from 0.
    shapes : ndarray of shapely geometries, shape (n,)
        Outlines in analysis px.
    """
    rows = sorted({b.y_px for b in plan.blocks})
    for top in rows:
        bounds = np.searchsorted(found.table["first_y"], [top, top + plan.block_px])
        shapes = np.full(int(bounds[1] - bounds[0]), None, object)
        for k, box in enumerate(plan.blocks):
            if box.y_px == top:
                labels, inner = scratch.load_shapes(k, name)
                numbers = scratch.load_numbers(name, k)[labels].astype(np.int64)
                shapes[numbers[numbers > 0] - 1 - bounds[0]] = inner[numbers > 0]
        crossing = np.flatnonzero([s is None for s in shapes])
        if len(crossing):
            shapes[crossing] = _joined_outlines(plan, scratch, found, name, crossing + bounds[0])
        yield int(bounds[0]), shapes


def _joined_outlines(
    plan: SlidePlan, scratch: Scratch, found: SlideObjects, name: str, which: NDArray[np.int64]
) -> NDArray[np.object_]:
    """Outline objects that cross borders, by their ascending indices, from their runs in all blocks that they reach."""
    top, bottom = found.table["top"][which].min(), found.table["bottom"][which].max()
    blocks = (
        (box, scratch.load_numbered(k, name, box))
        for k, box in enumerate(plan.blocks)
        if box.y_px < bottom and box.y_end_px > top
    )
    return outlines(joined_objects(blocks, which), np.ones(len(which), bool), (0, 0))
