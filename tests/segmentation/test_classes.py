"""A pixel's class depends on scores that lie near, never on how the class map is computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_minugan.segmentation import classes
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS, REACH_PX, Thresholds, class_map

cuts = st.tuples(*[st.floats(0.05, 0.95)] * 3).map(lambda c: Thresholds(*c))


def blobs(seed: int, h: int, w: int) -> np.ndarray:
    """Return scores with patches of high and of low values, some a pixel wide."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, h // 4 + 1, w // 4 + 1)).repeat(4, 1).repeat(4, 2)[:, :h, :w]
    return np.where(rng.random((3, h, w)) < 0.9, coarse, rng.integers(0, 256, (3, h, w))).astype(np.uint8)


@pytest.mark.slow
@given(st.integers(0, 999), st.integers(1, 120), st.integers(1, 120), st.integers(1, 130), cuts)
@settings(max_examples=80, deadline=None)
def test_tiles_of_any_size_give_the_same_classes(
    seed: int, h: int, w: int, tile: int, cut: Thresholds
) -> None:
    scores = blobs(seed, h, w)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classes, "_TILE_PX", 1000)
        whole = class_map(scores, cut)
        patch.setattr(classes, "_TILE_PX", tile)
        assert np.array_equal(class_map(scores, cut), whole)


@given(st.integers(0, 999), cuts)
@settings(max_examples=40, deadline=None)
def test_no_score_further_away_than_the_reach_has_a_say(seed: int, cut: Thresholds) -> None:
    scores = blobs(seed, 90, 80)
    other = blobs(seed + 1, 90, 80)
    other[:, 20:70, 15:60] = scores[:, 20:70, 15:60]
    inner = np.s_[20 + REACH_PX : 70 - REACH_PX, 15 + REACH_PX : 60 - REACH_PX]
    assert np.array_equal(class_map(scores, cut)[inner], class_map(other, cut)[inner])


def test_a_mitosis_wins_over_a_nucleus_and_a_boundary_parts_nuclei() -> None:
    scores = np.zeros((3, 60, 60), np.uint8)
    scores[0, 10:50, 10:50] = 255
    scores[2, 10:50, 28:32] = 255
    scores[1, 15:27, 12:24] = 255
    found = class_map(scores, Thresholds(0.5, 0.5, 0.5))
    assert found[20, 18] == MITOSIS
    assert found[40, 20] == found[40, 40] == NUCLEUS
    assert not found[:, 28:32].any()
