"""The patch grid: weights sum, cutting into boxes changes nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.blend import Blender
from wsi_minugan.segmentation.grid import TAPER_TOTAL, PatchGrid, taper

strides = st.integers(64, 128).map(lambda k: 2 * k)
sides = st.integers(1, 900)
grids = st.one_of(
    st.builds(PatchGrid, sides, sides, strides),
    st.builds(PatchGrid, sides, sides, strides.map(lambda k: 2 * k), st.just(512)),
)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_weights_sum_to_one_constant_at_every_pixel(grid: PatchGrid) -> None:
    total = np.zeros((grid.frame_height_px, grid.frame_width_px), np.int64)
    frame = Box(0, 0, *total.shape)
    for i, j in grid.patches_for(frame):
        part = grid.box(i, j).clipped(frame)
        total[part.slices_within(frame)] += grid.weights(i, j)[part.slices_within(grid.box(i, j))]
    assert (total == grid.total).all()


@given(sides, sides, strides, st.sampled_from([1, 2, 3]))
def test_windows_overlap_by_as_many_px_as_patches(h: int, w: int, stride: int, across: int) -> None:
    grid = PatchGrid.of_windows(h, w, stride, across)
    assert (grid.patch_px, grid.overlap_px) == (256 * across, 256 - stride)


@given(strides, st.sampled_from([1, 2]))
def test_shifted_tapers_sum_to_their_total(stride: int, across: int) -> None:
    step, side = stride * across, 256 * across
    line = np.zeros(4 * step + side, np.int64)
    for k in range(4):
        line[k * step : k * step + side] += taper(step, k == 0, k == 3, side)
    assert (line[: 3 * step + side] == TAPER_TOTAL).all()


@given(grids, st.integers(-300, 900), st.integers(-300, 900), st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=80, deadline=None)
def test_patches_for_a_box_are_those_that_meet_it(grid: PatchGrid, y: int, x: int, h: int, w: int) -> None:
    box = Box(y, x, h, w)
    met = [
        (i, j)
        for i in range(grid.shape[0])
        for j in range(grid.shape[1])
        if grid.box(i, j).clipped(box).height_px and grid.box(i, j).clipped(box).width_px
    ]
    assert grid.patches_for(box) == met


@given(
    st.integers(200, 700), st.integers(200, 700), strides, st.sampled_from([1, 2]), st.integers(100, 500), st.randoms(),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_blending_is_the_same_for_any_cutting_and_order(
    h: int, w: int, stride: int, across: int, side: int, random
) -> None:
    grid = PatchGrid(h, w, stride * across, 256 * across)
    frame = Box(0, 0, h, w)
    scores = {
        ij: np.random.default_rng(ij).integers(0, 256, (3, grid.patch_px, grid.patch_px), np.uint8)
        for ij in grid.patches_for(frame)
    }
    whole = Blender(frame, grid)
    for ij, s in scores.items():
        whole.add(*ij, s)
    expected = whole.scores()
    for y in range(0, h, side):
        for x in range(0, w, side):
            box = Box(y, x, min(side, h - y), min(side, w - x))
            part = Blender(box, grid)
            patches = grid.patches_for(box)
            random.shuffle(patches)
            for ij in patches:
                part.add(*ij, scores[ij])
            rows, columns = box.slices_within(frame)
            assert np.array_equal(part.scores(), expected[:, rows, columns])


def test_a_constant_stays_itself_after_blending() -> None:
    grid = PatchGrid(400, 300, 192)
    blender = Blender(Box(0, 0, 400, 300), grid)
    for ij in grid.patches_for(Box(0, 0, 400, 300)):
        blender.add(*ij, np.full((3, 256, 256), 137, np.uint8))
    assert (blender.scores() == 137).all()
