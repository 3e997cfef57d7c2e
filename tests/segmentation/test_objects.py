"""Objects of a slide are the same however it is cut into blocks."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.merging import SlideObjects, merge_objects
from wsi_minugan.segmentation.objects import label_objects, measure_objects
from wsi_minugan.segmentation.outlines import outlines, to_level0
from wsi_minugan.segmentation.run_lengths import joined, run_length_mask

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda s: arrays(np.bool_, s, elements=st.booleans(), fill=st.booleans())
)

cuttings = masks.flatmap(lambda m: st.tuples(st.just(m), st.integers(-(-max(m.shape) // 8), max(m.shape))))
"""Masks, and a side of blocks that cuts them into 64 at most: more are slow, and show no more."""


def merged(
    mask: np.ndarray, side: int, min_area: float = 0, min_peak: int = 0
) -> tuple[SlideObjects, np.ndarray]:
    """Label block by block, merge, and paint the numbers."""
    score = (np.arange(mask.size).reshape(mask.shape) * 37 % 256).astype(np.uint8)
    boxes = [
        Box(y, x, min(side, mask.shape[0] - y), min(side, mask.shape[1] - x))
        for y in range(0, mask.shape[0], side)
        for x in range(0, mask.shape[1], side)
    ]
    frame = Box(0, 0, *mask.shape)
    runs = [run_length_mask(mask[b.slices_within(frame)]) for b in boxes]
    found = merge_objects(
        [measure_objects(r, score[b.slices_within(frame)], b) for r, b in zip(runs, boxes, strict=True)],
        min_area,
        min_peak,
    )
    painted = np.zeros(mask.shape, np.uint32)
    for r, b, numbers in zip(runs, boxes, found.numbers, strict=True):
        part = np.zeros(r.shape, np.uint32)
        r.paint(part, numbers[r.labels])
        painted[b.slices_within(frame)] = part
    return found, painted


@pytest.mark.slow
@given(cuttings)
@settings(max_examples=150, deadline=None)
def test_any_block_size_gives_the_same_objects(cutting: tuple[np.ndarray, int]) -> None:
    mask, side = cutting
    whole, painted_whole = merged(mask, max(mask.shape))
    cut, painted_cut = merged(mask, side)
    assert np.array_equal(painted_whole, painted_cut)
    for column, values in whole.table.items():
        assert np.array_equal(values, cut.table[column]), column


@given(masks)
@settings(max_examples=60, deadline=None)
def test_objects_are_those_of_scikit_image(mask: np.ndarray) -> None:
    found, painted = merged(mask, 7)
    expected = label(mask, connectivity=2)
    assert found.count == expected.max()
    assert np.array_equal(painted, expected)
    for region in regionprops(expected):
        k = region.label - 1
        assert found.table["area_px"][k] == region.area
        assert found.centroids()[k] == pytest.approx(np.array(region.centroid)[::-1] + 0.5)


@pytest.mark.slow
@given(masks, st.integers(1, 9), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_small_and_weak_objects_are_dropped_after_merging(mask: np.ndarray, area: int, peak: int) -> None:
    everything, _ = merged(mask, 5)
    found, painted = merged(mask, 5, area, peak)
    keep = (everything.table["area_px"] >= area) & (everything.table["peak"] >= peak)
    assert found.count == keep.sum() == len(np.unique(painted[painted > 0]))


@given(masks)
@settings(max_examples=100, deadline=None)
def test_runs_are_the_masks_pixels_and_label_its_connected_objects(mask: np.ndarray) -> None:
    runs = run_length_mask(mask)
    painted = np.zeros(mask.shape, np.uint32)
    runs.paint(painted, runs.labels)
    assert np.array_equal(painted, label(mask, connectivity=2))
    assert painted.max() == runs.count == label_objects(mask).max()


@pytest.mark.slow
@given(cuttings)
@settings(max_examples=80, deadline=None)
def test_the_runs_of_blocks_joined_are_those_of_the_whole_mask(cutting: tuple[np.ndarray, int]) -> None:
    mask, side = cutting
    whole = run_length_mask(mask)
    painted = np.zeros(mask.shape, np.int32)
    whole.paint(painted, whole.labels)
    parts = []
    for y in range(0, mask.shape[0], side):
        for x in range(0, mask.shape[1], side):
            part = painted[y : y + side, x : x + side]
            runs = run_length_mask(part > 0)
            box = Box(y, x, *part.shape)
            parts.append(
                (box, replace(runs, labels=part.reshape(-1)[runs.pixels[runs.lengths.cumsum() - 1]]))
            )
    found = joined(parts)
    for column in ("rows", "starts", "ends", "labels"):
        assert np.array_equal(getattr(found, column), getattr(whole, column)), column


@given(masks)
@settings(max_examples=100, deadline=None)
def test_borders_hold_the_labels_along_the_blocks_edges(mask: np.ndarray) -> None:
    labels = label(mask, connectivity=2)
    borders = measure_objects(run_length_mask(mask), mask.astype(np.uint8), Box(0, 0, *mask.shape)).borders
    edges = {"top": labels[0], "bottom": labels[-1], "left": labels[:, 0], "right": labels[:, -1]}
    assert all(np.array_equal(borders[side], edge) for side, edge in edges.items())


@given(masks)
@settings(max_examples=100, deadline=None)
def test_outlines_are_valid_and_cover_their_pixels(mask: np.ndarray) -> None:
    labels = label(mask, connectivity=2)
    shapes = outlines(run_length_mask(mask), np.ones(labels.max(), bool), (0, 0))
    assert all(shapely.is_valid(to_level0(shapes, 0.5))) if len(shapes) else True
    for k, polygon in enumerate(shapes):
        ys, xs = np.nonzero(labels == k + 1)
        centres = shapely.points(xs + 0.5, ys + 0.5)
        assert shapely.covers(polygon.buffer(1e-6), centres).all()


@given(masks, st.integers(0, 5000), st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_outlines_are_bit_equal_wherever_a_mask_begins(mask: np.ndarray, y: int, x: int) -> None:
    wanted = np.ones(run_length_mask(mask).count, bool)
    whole = outlines(run_length_mask(mask), wanted, (y + 3, x + 2))
    inside = outlines(run_length_mask(np.pad(mask, ((3, 0), (2, 0)))), wanted, (y, x))
    assert [s.wkb for s in whole] == [s.wkb for s in inside]


@given(masks)
@settings(max_examples=60, deadline=None)
def test_an_outline_is_bit_equal_whatever_lies_around_its_object(mask: np.ndarray) -> None:
    runs = run_length_mask(mask)
    together = outlines(runs, np.ones(runs.count, bool), (0, 0))
    for k, shape in enumerate(together):
        alone = run_length_mask(label(mask, connectivity=2) == k + 1)
        assert outlines(alone, np.ones(1, bool), (0, 0))[0].wkb == shape.wkb
        assert outlines(runs, np.arange(runs.count) == k, (0, 0))[k].wkb == shape.wkb
