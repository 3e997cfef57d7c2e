"""What to look at next: an object that could change the score, and none once nothing can."""

import time
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_minugan.counting.count import count_mitoses
from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.result import Result
from wsi_minugan.review.standing import standing_of


def mitosis(k: int, x: float, y: float, score: float) -> Marked:
    return Marked(f"{k:032x}", "Mitosis", shapely.Point(x, y).buffer(5), measurements={"Mean score": score})


@pytest.fixture
def crowd(result: Result) -> Result:
    """Return a slide with 9 mitoses in one place (Nottingham 2) and 3 far away."""
    near = [mitosis(k, 1000 + 50 * k, 1000, 0.9 - 0.03 * k) for k in range(9)]
    far = [mitosis(20 + k, 90_000 + 50 * k, 1000, 0.5) for k in range(3)]
    return with_mitoses(result, [*near, *far])


def with_mitoses(result: Result, mitoses: list[Marked]) -> Result:
    points = np.array([m.centre_px for m in mitoses])
    count = count_mitoses(points, 0.25, result.count.hotspot.area_mm2, 0.5, 1.0, None)
    return replace(result, mitoses=tuple(mitoses), count=count)


def test_the_first_is_the_least_certain_in_the_hot_spot(crowd: Result) -> None:
    state = standing_of(crowd, {}, ())
    assert not state.settled
    assert state.pivotal == 9
    assert state.queue[0] == crowd.mitoses[8].id
    assert (state.least, state.most) == (0, 9)


def test_it_ends_as_soon_as_no_open_object_can_change_a_score(crowd: Result) -> None:
    # TUPAC16's score 2 ends at 10, Nottingham's begins at 8: with eight accepted the other one cannot change either.
    accepted = {m.id: "accepted" for m in crowd.mitoses[:7]}
    assert not standing_of(crowd, accepted, ()).settled
    accepted |= {crowd.mitoses[7].id: "accepted"}
    state = standing_of(crowd, accepted, ())
    assert state.settled
    assert state.pivotal == 0
    assert len(state.queue) == 4


def test_rejected_ones_leave_the_count_and_added_ones_enter(crowd: Result) -> None:
    state = standing_of(crowd, {crowd.mitoses[0].id: "rejected"}, [mitosis(50, 1010, 1010, 1.0)])
    assert state.count.mitoses == 12
    assert state.most == 9
    assert state.least == 1


def test_the_count_follows_at_once_where_the_best_fields_are_hard_to_find(result: Result) -> None:
    at = np.random.default_rng(5).normal(0, 1500, (60, 2)) + 20_000
    mitoses = [mitosis(k, x, y, 0.9) for k, (x, y) in enumerate(at.tolist())]
    slide = replace(with_mitoses(result, mitoses[:3]), mitoses=tuple(mitoses))
    start = time.thread_time()
    state = standing_of(slide, {slide.mitoses[0].id: "rejected"}, ())
    assert time.thread_time() - start < 4  # with the whole search over 8 s
    assert state.count.fields is not None
    assert state.count.mitoses == 59


def test_a_slide_without_mitoses_is_settled(result: Result) -> None:
    state = standing_of(replace(result, mitoses=()), {}, ())
    assert state.settled
    assert state.queue == ()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=9, unique=True),
    said=st.lists(st.sampled_from(["accepted", "rejected", None]), min_size=9, max_size=9),
)
def test_settled_means_that_no_way_to_decide_the_rest_changes_a_score(places, said) -> None:
    mitoses = [mitosis(k, 100.0 * x, 100.0 * y, 0.5) for k, (x, y) in enumerate(places)]
    slide = SmallSlide(mitoses)
    verdicts = {m.id: v for m, v in zip(mitoses, said, strict=False) if v}
    state = standing_of(slide, verdicts, ())  # type: ignore[arg-type]
    still_open = [m for m in mitoses if m.id not in verdicts]
    sure = [m for m in mitoses if verdicts.get(m.id) == "accepted"]
    scores = set()
    for way in range(2 ** len(still_open)):
        count = slide.recount([*sure, *(m for k, m in enumerate(still_open) if way >> k & 1)])
        scores.add((count.scores.nottingham, count.scores.tupac16))
        assert state.least <= count.hotspot.mitoses <= state.most
    assert state.settled == (len(scores) == 1)
    assert (state.pivotal == 0) == state.settled


class SmallSlide:
    """A slide with a small hot spot and few mitoses for each score, so that all ways to decide can be tried."""

    def __init__(self, mitoses: list[Marked]) -> None:
        self.mitoses = tuple(mitoses)

    def recount(self, mitoses: list[Marked], fields_s: float | None = None, *, fields: bool = True):
        points = np.array([m.centre_px for m in mitoses], float).reshape(-1, 2)
        return count_mitoses(points, 0.25, 0.7, 0.5)
