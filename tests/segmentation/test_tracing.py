"""Large objects are traced by their edges: the same outline as by their mask, at the cost of the edge alone."""

import tracemalloc

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.segmentation import outlines as outlining
from wsi_minugan.segmentation.outlines import outlines
from wsi_minugan.segmentation.run_lengths import RunLengthMask, run_length_mask
from wsi_minugan.segmentation.tracing import trace

MASKS = arrays(
    bool, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 1, 1, 1])
)


@given(MASKS, st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_a_traced_contour_is_opencvs_point_for_point(mask: np.ndarray, which: int) -> None:
    found = run_length_mask(mask)
    assume(found.count)
    runs = found.of(found.labels == 1 + which % found.count)
    alone = np.zeros(mask.shape, np.uint8)
    runs.paint(alone, 1)
    corners = np.zeros((2 * alone.shape[0] + 1, 2 * alone.shape[1] + 1), np.uint8)
    corners[1::2, 1::2] = alone
    expected, (tree,) = cv2.findContours(
        cv2.dilate(corners, np.ones((3, 3), np.uint8)), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    by_kind = sorted(range(len(expected)), key=lambda k: tree[k][3] >= 0)
    contours, parents = trace(runs)
    assert [c.tolist() for c in contours] == [expected[k].tolist() for k in by_kind]
    assert (parents < 0).tolist() == [tree[k][3] < 0 for k in by_kind]


@given(MASKS, st.integers(0, 9000), st.integers(0, 9000))
@settings(max_examples=60, deadline=None)
def test_a_large_object_has_the_outline_that_its_mask_would_give(mask: np.ndarray, y: int, x: int) -> None:
    found = run_length_mask(mask)
    wanted = np.ones(found.count, bool)
    by_mask = outlines(found, wanted, (y, x))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(outlining, "_LARGE_PX", 1)
        traced = outlines(found, wanted, (y, x))
    assert [s.wkb for s in traced] == [s.wkb for s in by_mask]


def slanted(length_px: int) -> RunLengthMask:
    """Return a thin object from corner to corner of a square."""
    along = np.arange(length_px, dtype=np.int32)
    return RunLengthMask((length_px, length_px + 3), along, along, along + 3, np.ones(length_px, np.int32))


def test_an_object_of_12000_px_takes_the_memory_of_its_edge() -> None:
    found = slanted(12_000)
    tracemalloc.start()
    (shape,) = outlines(found, np.ones(1, bool), (5, 7))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert shape.is_valid
    assert shape.bounds == (7, 5, 7 + 12_002, 5 + 12_000)
    # Along the stairs of its pixels an outline may run half a pixel outside on both sides.
    assert 3 * 12_000 <= shape.area <= 4 * 12_000
    assert isinstance(shape, shapely.Polygon)
