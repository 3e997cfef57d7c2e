"""Matching is the optimum; figures agree with hand calculations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from minugan_training.evaluation.matching import match
from minugan_training.evaluation.metrics import (
    Detections,
    average_precision,
    bootstrap_interval,
    dice,
    panoptic_quality,
    pooled,
)

points = st.integers(0, 5).flatmap(
    lambda n: arrays(np.float64, (n, 2), elements=st.integers(0, 12).map(float))
)


def best(found: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """Try every assignment: the most matches, then the least summed distance."""
    d = (
        np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1))
        if len(found) and len(truth)
        else np.zeros((0, 0))
    )
    options = [(0, 0.0)]
    for k in range(1, min(len(found), len(truth)) + 1):
        for rows in itertools.combinations(range(len(found)), k):
            for columns in itertools.permutations(range(len(truth)), k):
                chosen = d[list(rows), list(columns)]
                if (chosen <= radius).all():
                    options.append((k, float(chosen.sum())))
    most = max(o[0] for o in options)
    return most, min(o[1] for o in options if o[0] == most)


@given(points, points, st.floats(0.5, 8))
@settings(max_examples=80, deadline=None)
def test_matching_is_the_brute_force_optimum(found: np.ndarray, truth: np.ndarray, radius: float) -> None:
    result = match(found, truth, radius)
    count, total = best(found, truth, radius)
    assert len(result.pairs) == count
    distance = sum(np.hypot(*(found[f] - truth[t])) for f, t in result.pairs)
    assert distance == pytest.approx(total)
    assert len(result.pairs) + len(result.false_positives) == len(found)
    assert len(result.pairs) + len(result.false_negatives) == len(truth)


def test_figures_agree_with_a_hand_calculation() -> None:
    total = pooled([Detections(3, 1, 2, 2.0), Detections(1, 0, 1, 1.0)])
    assert (total.precision, total.recall) == (4 / 5, 4 / 7)
    assert total.f1 == pytest.approx(8 / 12)
    assert total.fp_per_mm2 == pytest.approx(1 / 3)


def test_an_interval_holds_the_pooled_figure_and_is_seeded() -> None:
    groups = {str(k): Detections(k, 1, 10 - k) for k in range(10)}
    low, high = bootstrap_interval(groups, lambda d: d.recall)
    assert low <= pooled(list(groups.values())).recall <= high
    assert (low, high) == bootstrap_interval(groups, lambda d: d.recall)


def test_average_precision_by_hand() -> None:
    hit = np.array([True, False, True])
    assert average_precision(np.array([0.9, 0.8, 0.7]), hit, 4) == pytest.approx((1 + 2 / 3) / 4)


def test_panoptic_quality_of_a_perfect_and_a_halved_result() -> None:
    truth = np.zeros((20, 20), int)
    truth[2:8, 2:8], truth[10:18, 10:18] = 1, 2
    assert panoptic_quality(truth, truth) == (1.0, 1.0, 1.0)
    one = np.where(truth == 2, 0, truth)
    assert panoptic_quality(one, truth)[2] == pytest.approx(2 / 3)


def test_dice_of_empty_masks_is_one() -> None:
    assert dice(np.zeros((3, 3), bool), np.zeros((3, 3), bool)) == 1.0
