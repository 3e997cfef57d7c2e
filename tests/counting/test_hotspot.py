"""The hot spot is exact: no placement of the circle holds more."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.counting import hotspot
from wsi_minugan.counting.hotspot import find_hotspot

coordinates = st.one_of(st.integers(0, 60).map(float), st.floats(0, 60, width=32))
point_sets = st.integers(1, 14).flatmap(lambda n: arrays(np.float64, (n, 2), elements=coordinates))


def brute_force(points: np.ndarray, radius: float) -> int:
    """Count at every point and at both centres of circles through every pair."""
    centres = [tuple(p) for p in points]
    for p, q in itertools.combinations(points, 2):
        d = np.hypot(*(q - p))
        if 0 < d <= 2 * radius:
            h = math.sqrt(max(0.0, radius**2 - d**2 / 4))
            normal = np.array([-(q - p)[1], (q - p)[0]]) / d
            centres += [tuple((p + q) / 2 + s * h * normal) for s in (1, -1)]
    return max(int((np.hypot(*(points - c).T) <= radius * (1 + 1e-7)).sum()) for c in centres)


@example(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 4.0], [1.17549435e-38, 0.0]]), 3.0)  # two points all but one
@given(point_sets, st.floats(0.5, 40))
@settings(max_examples=150, deadline=None)
def test_no_placement_holds_more(points: np.ndarray, radius: float) -> None:
    found = find_hotspot(points, radius)
    assert found is not None
    assert found.mitoses == brute_force(points, radius)
    inside = np.hypot(points[:, 0] - found.center_x_px, points[:, 1] - found.center_y_px) <= radius * (
        1 + 1e-6
    )
    assert inside.sum() >= found.mitoses


@pytest.mark.slow
@example(np.array([[0.0, 0.0], [0.0, 7.0]]), 3.625)  # some cells are near no point
@given(point_sets, st.floats(0.5, 40))
@settings(max_examples=150, deadline=None)
def test_ruling_out_cells_changes_nothing(points: np.ndarray, radius: float) -> None:
    plain = find_hotspot(points, radius)
    before = hotspot._FEW_ARCS, hotspot._ARC_COST, hotspot._MAX_CELLS
    hotspot._FEW_ARCS, hotspot._ARC_COST, hotspot._MAX_CELLS = 0, math.inf, 512
    try:
        pruned = find_hotspot(points, radius)
    finally:
        hotspot._FEW_ARCS, hotspot._ARC_COST, hotspot._MAX_CELLS = before
    assert plain is not None
    assert pruned is not None
    assert pruned.mitoses == plain.mitoses


def test_of_equal_counts_the_one_with_more_tissue_wins() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0], [101.0, 0.0]])
    assert find_hotspot(points, 5.0, lambda x, y, r: 0.2 if x < 50 else 0.9).center_x_px == pytest.approx(
        100.5
    )
    assert find_hotspot(points, 5.0, lambda x, y, r: 0.5).center_x_px == pytest.approx(0.5)


def test_no_mitoses_have_no_hot_spot() -> None:
    assert find_hotspot(np.zeros((0, 2)), 5.0) is None


def clouds() -> dict[str, np.ndarray]:
    """Five thousand mitoses in many ways."""
    rng = np.random.default_rng(3)
    angle = rng.uniform(0, 2 * np.pi, 5000)
    found = {f"normal {s}": rng.normal(40_000, s, (5000, 2)) for s in (200, 2_000, 20_000, 80_000)}
    found |= {f"uniform {s}": rng.uniform(0, s, (5000, 2)) for s in (7_000, 12_000, 14_000, 20_000, 60_000)}
    found["whole numbers"] = rng.integers(0, 14_000, (5000, 2)).astype(float)
    found["ring"] = 5_000 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found["one place"] = np.full((5000, 2), 7.0)
    return found


@pytest.mark.parametrize("name", sorted(clouds()))
def test_five_thousand_mitoses_take_under_two_seconds(name: str) -> None:
    points = clouds()[name]
    start = time.process_time()
    found = find_hotspot(points, 3160.0)
    assert time.process_time() - start < 2.0
    inside = np.hypot(points[:, 0] - found.center_x_px, points[:, 1] - found.center_y_px) <= 3160.0 + 1e-6
    assert found.mitoses == inside.sum()


def test_mitoses_at_one_place_count_each() -> None:
    points = np.array([[0.0, 0.0]] * 3 + [[90.0, 0.0]] * 4 + [[91.0, 0.0]])
    assert find_hotspot(points, 10.0).mitoses == 5
