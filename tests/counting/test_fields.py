"""Ten high-power fields: they do not overlap, hold what they say, and no placement holds more than the bound."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.counting.fields.coverage import coverable_sets
from wsi_minugan.counting.fields.packing import overlapping
from wsi_minugan.counting.fields.placing import Fields, find_fields
from wsi_minugan.counting.regions import TissueRaster

point_sets = st.integers(1, 12).flatmap(
    lambda n: arrays(
        np.float64, (n, 2), elements=st.one_of(st.integers(0, 12).map(float), st.floats(0, 12, width=32))
    )
)


def checked(found: Fields, points: np.ndarray, diameter: float) -> None:
    """Count again, and look for overlaps."""
    assert not overlapping(found.centers_px, diameter)
    distance = np.hypot(*(points[None] - found.centers_px[:, None]).transpose(2, 0, 1))
    assert (distance <= diameter / 2 * (1 + 1e-6)).any(axis=0).sum() >= found.total
    assert sum(found.counts) == found.total <= found.upper_bound <= len(points)
    assert found.proved_optimal == (found.total == found.upper_bound)


def on_a_raster(points: np.ndarray, fields: int, step: float = 1.0) -> int:
    """Return the best total of circles of radius 1 whose centres lie on a raster: no proof, but nothing may fall below it."""
    axis = np.arange(-1, 13 + step, step)
    centres = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    held = np.hypot(*(points[None] - centres[:, None]).transpose(2, 0, 1)) <= 1
    useful = np.flatnonzero(held.any(axis=1))
    best = int(held.sum(axis=1).max())
    for a, b in itertools.combinations(useful, 2) if fields == 2 else ():
        if np.hypot(*(centres[a] - centres[b])) >= 2:
            best = max(best, int((held[a] | held[b]).sum()))
    return best


@given(point_sets)
@settings(max_examples=25, deadline=None)
def test_two_fields_hold_no_less_than_any_on_a_raster(points: np.ndarray) -> None:
    found = find_fields(points, 2.0, "free", 2)
    checked(found, points, 2.0)
    assert found.total >= on_a_raster(points, 2)


@given(point_sets, st.sampled_from(["free", "adjacent"]))
@settings(max_examples=25, deadline=None)
def test_ten_fields_never_overlap(points: np.ndarray, mode: str) -> None:
    found = find_fields(points, 2.0, mode)
    checked(found, points, 2.0)
    assert len(found.counts) == len(found.centers_px) == 10


def test_ten_clusters_far_apart_are_the_ten_fields() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [np.array([3000.0 * k, 2000.0 * (k % 3)]) + rng.uniform(-300, 300, (5, 2)) for k in range(12)]
    )
    found = find_fields(points, 2000.0)
    assert found.counts == (5,) * 10
    assert found.proved_optimal


def test_mitoses_at_one_place_count_each() -> None:
    found = find_fields(np.array([[5.0, 5.0]] * 4 + [[50.0, 5.0]]), 2.0)
    assert found.counts == (4, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_adjacent_fields_touch_and_hang_together() -> None:
    points = np.random.default_rng(2).normal(0, 2.5, (60, 2))
    found = find_fields(points, 2.0, "adjacent")
    checked(found, points, 2.0)
    distance = np.hypot(*(found.centers_px[:, None] - found.centers_px[None]).transpose(2, 0, 1))
    touching = np.abs(distance - 2) < 1e-6
    reached = {0}
    for _ in range(10):
        reached |= {k for r in reached for k in np.flatnonzero(touching[r])}
    assert len(reached) == 10
    assert found.total <= find_fields(points, 2.0).total


def test_a_row_of_touching_clusters_is_walked_from_end_to_end() -> None:
    rng = np.random.default_rng(1)
    points = np.concatenate([np.array([2.0 * k, 0.0]) + rng.uniform(-0.1, 0.1, (4, 2)) for k in range(10)])
    found = find_fields(points, 2.0, "adjacent")
    assert (found.total, found.proved_optimal) == (40, True)


def test_without_mitoses_there_are_no_fields() -> None:
    found = find_fields(np.zeros((0, 2)), 2.0)
    assert (found.counts, found.total, found.proved_optimal, len(found.centers_px)) == ((), 0, True, 0)


def test_empty_fields_lie_on_tissue() -> None:
    analysed = np.zeros((40, 40), bool)
    analysed[:, 20:] = True
    tissue = TissueRaster(analysed, 1.0, 40, 40)
    found = find_fields(np.array([[25.0, 20.0]]), 4.0, tissue=tissue)
    assert all(tissue.share(True, 4.0, 4.0, x, y) > 0.5 for x, y in found.centers_px)


@pytest.mark.parametrize("seed", [5, 9])
def test_fields_that_hold_all_mitoses_are_found_at_once(seed: int) -> None:
    # Of these many choices of fields hold all, and the integer program tried one after the other.
    rng = np.random.default_rng(seed)
    crowd = rng.uniform(-620, 620, (20, 2))
    beside = rng.uniform(-60, 60, (2, 2)) + np.array([1900, -400])
    start = time.thread_time()
    found = find_fields(np.concatenate([crowd, beside]), 2000.0)
    assert time.thread_time() - start < 1
    assert (found.counts[:2], found.proved_optimal) == ((20, 2), True)


def test_of_choices_that_hold_as_many_the_roomy_ones_come_first() -> None:
    # The program gave one choice after the other whose fields have no place side by side.
    points = np.random.default_rng(1).uniform(0, [6_000, 8_000], (60, 2))
    start = time.thread_time()
    found = find_fields(points, 2000.0)
    assert time.thread_time() - start < 1
    checked(found, points, 2000.0)
    assert (found.total, found.proved_optimal) == (58, True)


def test_the_room_of_a_set_is_what_its_smallest_circle_leaves() -> None:
    sets = coverable_sets(np.array([[0.0, 0.0], [1.2, 0.0], [50.0, 0.0]]), np.ones(3, np.int64))
    assert sets is not None
    room = {
        int(m.sum()): r for m, r in zip(sets.members, sets.room(np.arange(len(sets.members))), strict=True)
    }
    assert room == pytest.approx({1: 1.0, 2: 0.4})


@pytest.mark.slow
@pytest.mark.parametrize("spread", [2_000, 3_000, 10_000])
def test_three_hundred_mitoses_take_under_ten_seconds_of_work(spread: float) -> None:
    points = np.random.default_rng(5).normal(0, spread, (300, 2))
    start = time.thread_time()
    found = find_fields(points, 2000.0)
    assert time.thread_time() - start < 10
    checked(found, points, 2000.0)
    assert found.upper_bound - found.total <= 0.08 * found.total


def test_all_faces_between_circles_are_found() -> None:
    points = np.random.default_rng(6).integers(0, 4, (9, 2)).astype(float)
    places, weights = np.unique(points, axis=0, return_counts=True)
    found = coverable_sets(places, weights)
    sets = {m.tobytes() for m in found.members}
    at = np.random.default_rng(7).uniform(-1, 5, (5000, 2))
    held = np.hypot(*(places[None] - at[:, None]).transpose(2, 0, 1)) <= 1
    assert {h.tobytes() for h in held if h.any()} <= sets
