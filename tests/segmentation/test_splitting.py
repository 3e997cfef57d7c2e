"""Touching nuclei are split, the same wherever they lie and however a slide is cut into blocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.geometry import Box
from wsi_minugan.pipeline.blocks.packing import packed_merged, unpacked_numbered
from wsi_minugan.pipeline.blocks.splitting import pieces_by_block, split_crossing, split_inside
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS
from wsi_minugan.segmentation.merging import join_objects, numbered_objects
from wsi_minugan.segmentation.objects import ObjectCut, label_objects, measure_objects
from wsi_minugan.segmentation.run_lengths import run_length_mask
from wsi_minugan.segmentation.splitting import Splitting, split_classes, split_touching, splitting_px

RULE = Splitting(smoothing_px=0.8, least_depth_px=1.2, least_area_px=100, largest_area_px=20_000, hole_px=160)
EVERY = replace(RULE, least_area_px=0, least_depth_px=0.5)


def disc(shape: tuple[int, int], y: float, x: float, radius: float, stretch: float = 1.0) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - y) ** 2 + ((columns - x) / stretch) ** 2) <= radius**2


def split(mask: np.ndarray, rule: Splitting = RULE) -> np.ndarray:
    """Return the mask after splitting."""
    return split_classes(np.where(mask, np.uint8(NUCLEUS), np.uint8(0)), rule) > 0


def numbered_by_blocks(mask: np.ndarray, side: int, rule: Splitting, cut: ObjectCut) -> np.ndarray:
    """Split, merge and number a slide's nuclei block by block, as its stages do, and paint their numbers."""
    frame = Box(0, 0, *mask.shape)
    boxes = [
        Box(y, x, side, side).clipped(frame)
        for y in range(0, mask.shape[0], side)
        for x in range(0, mask.shape[1], side)
    ]
    runs = [split_inside(run_length_mask(mask[b.slices_within(frame)]), rule) for b in boxes]
    objects = [measure_objects(r, None, b) for r, b in zip(runs, boxes, strict=True)]
    joined, pieces = split_crossing(objects, join_objects(objects), lambda k: runs[k], rule)
    merged = numbered_objects(joined, cut)
    arrays = packed_merged(merged, pieces_by_block(boxes, pieces, merged.numbers[-1]))
    painted = np.zeros(mask.shape, np.uint32)
    for k, box in enumerate(boxes):
        numbered = unpacked_numbered(arrays, k, runs[k])
        part = np.zeros(numbered.shape, np.uint32)
        numbered.paint(part, numbered.labels)
        painted[box.slices_within(frame)] = part
    assert merged.count == painted.max()
    assert np.array_equal(
        np.bincount(painted.ravel(), minlength=merged.count + 1)[1:], merged.table["area_px"]
    )
    return painted


@given(st.integers(0, 40), st.integers(0, 40), st.integers(10, 100))
@settings(max_examples=25, deadline=None)
def test_two_touching_discs_become_two_whatever_the_block_grid(y: int, x: int, side: int) -> None:
    shape = (90, 110)
    mask = disc(shape, 20 + y, 20 + x, 13) | disc(shape, 28 + y, 42 + x, 13)
    assert label_objects(mask).max() == 1
    painted = numbered_by_blocks(mask, side, RULE, ObjectCut(0, 0))
    assert painted.max() == 2
    assert np.array_equal(painted, numbered_by_blocks(mask, 200, RULE, ObjectCut(0, 0)))


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
        lambda s: arrays(np.bool_, s, elements=st.booleans(), fill=st.booleans())
    ),
    st.integers(5, 40),
    st.integers(0, 30),
)
@settings(max_examples=40, deadline=None)
def test_any_block_size_splits_any_mask_alike(mask: np.ndarray, side: int, area: int) -> None:
    whole = numbered_by_blocks(mask, 40, EVERY, ObjectCut(area, 0))
    assert np.array_equal(whole, numbered_by_blocks(mask, side, EVERY, ObjectCut(area, 0)))


@given(
    arrays(np.bool_, (30, 34), elements=st.booleans(), fill=st.booleans()),
    st.integers(0, 9),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_an_object_is_split_the_same_wherever_it_lies_and_whatever_lies_around_it(
    mask: np.ndarray, y: int, x: int
) -> None:
    alone = split(mask, EVERY)
    around = np.zeros((60, 60), bool)
    around[y : y + 30, x : x + 34] = mask
    around[45:] = disc((15, 60), 7, 30, 7)
    assert np.array_equal(split(around, EVERY)[y : y + 30, x : x + 34], alone)


@given(arrays(np.bool_, (40, 40), elements=st.booleans(), fill=st.booleans()))
@settings(max_examples=60, deadline=None)
def test_pieces_are_apart_and_lie_in_their_object(mask: np.ndarray) -> None:
    runs = run_length_mask(mask)
    done = split_touching(runs, np.ones(runs.count, bool), EVERY)
    after = done.applied(runs)
    painted = np.zeros(mask.shape, np.int32)
    after.paint(painted, after.labels)
    assert not painted[~mask].any()
    # Pixels that touch belong together: whoever labels the class map finds the same objects.
    assert after.count == label_objects(painted > 0).max() == len(np.unique(painted[painted > 0]))
    assert (done.pieces.count > 0) == bool(done.split.any())
    lost = mask & (painted == 0)
    assert lost.sum() < 0.5 * mask.sum() + 1


@pytest.mark.parametrize("stretch", [1.0, 2.0, 3.5])
def test_a_single_nucleus_stays_whole_however_long(stretch: float) -> None:
    mask = disc((60, 120), 30, 60, 12, stretch)
    assert np.array_equal(split(mask), mask)


def test_a_pale_middle_does_not_split_a_nucleus_and_a_wide_gap_still_does() -> None:
    pale = disc((60, 60), 30, 30, 14) & ~disc((60, 60), 30, 30, 5)
    assert label_objects(split(pale)).max() == 1
    # With holes as edges, a ring is a chain of maxima; that is why small ones are filled first.
    ring = np.zeros((140, 140), bool)
    for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
        ring |= disc(ring.shape, 70 + 33 * np.sin(angle), 70 + 33 * np.cos(angle), 14)
    assert label_objects(ring).max() == 1
    assert label_objects(split(ring)).max() == 8


def test_objects_outside_of_the_sizes_stay_whole() -> None:
    mask = disc((60, 110), 30, 30, 13) | disc((60, 110), 34, 53, 13)
    area = int(mask.sum())
    assert label_objects(split(mask, replace(RULE, least_area_px=area))).max() == 2
    for rule in (replace(RULE, least_area_px=area + 1), replace(RULE, largest_area_px=area - 1)):
        assert np.array_equal(split(mask, rule), mask)


def test_other_classes_stay_as_they_are() -> None:
    classes = np.zeros((60, 160), np.uint8)
    classes[disc(classes.shape, 30, 30, 13) | disc(classes.shape, 34, 53, 13)] = NUCLEUS
    classes[disc(classes.shape, 30, 110, 13) | disc(classes.shape, 34, 133, 13)] = MITOSIS
    found = split_classes(classes, RULE)
    assert np.array_equal(found == MITOSIS, classes == MITOSIS)
    assert label_objects(found == NUCLEUS).max() == 2


def test_a_rule_in_um_is_the_same_rule_at_any_resolution() -> None:
    rule = splitting_px(
        0.5, smoothing_um=0.2, least_depth_um=0.3, least_area_um2=25, largest_area_um2=5000, hole_um2=10
    )
    assert rule == Splitting(0.4, 0.6, 100, 20_000, 40)
    assert rule.window_px == 1
    assert splitting_px(
        0.25, smoothing_um=0.2, least_depth_um=0.3, least_area_um2=25, largest_area_um2=5000, hole_um2=10
    ) == Splitting(0.8, 1.2, 400, 80_000, 160)
