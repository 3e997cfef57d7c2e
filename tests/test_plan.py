"""In which order a slide's blocks are analysed."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.geometry import analysis_frame, blocks_of
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.reader import SlideInfo
from wsi_minugan.slides.tissue import TissueMask

BLOCK_PX, CELL_PX = 64, 32


def plan_of(tissue: np.ndarray) -> SlidePlan:
    height, width = (CELL_PX * n for n in tissue.shape)
    frame = analysis_frame(width, height, 0.25, 0.25)
    mask = TissueMask(tissue, CELL_PX, width, height)
    blocks = tuple(b for b in blocks_of(frame, BLOCK_PX) if mask.any_in(b))
    path = Path("s.svs")
    info = SlideInfo(path, width, height, (), 0.25, 0.25, "file", "drawn", 40.0)
    return SlidePlan(SlideInput("s", path), info, frame, "slide", mask, blocks, BLOCK_PX, 192)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)), fill=st.just(True)))
def test_neighbouring_blocks_are_never_analysed_in_one_half_and_large_ones_go_first(
    tissue: np.ndarray,
) -> None:
    plan = plan_of(tissue)
    corners = [(plan.blocks[k].y_px // BLOCK_PX, plan.blocks[k].x_px // BLOCK_PX) for k in plan.order]
    cells = [int(tissue[plan.tissue.cells_of(plan.blocks[k])].sum()) for k in plan.order]
    assert sorted(plan.order) == list(range(len(plan.blocks)))
    assert any(
        apart(part)
        and sizes == sorted(sizes, reverse=True)
        and apart(rest)
        and others == sorted(others)[::-1]
        for n in range(len(cells) + 1)
        for part, sizes, rest, others in [(corners[:n], cells[:n], corners[n:], cells[n:])]
    )


def apart(corners: list[tuple[int, int]]) -> bool:
    """Return whether no two blocks share a side."""
    return not any((y + 1, x) in corners or (y, x + 1) in corners for y, x in corners)
