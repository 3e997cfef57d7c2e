"""Scores and count.json."""

import math

import numpy as np
import pytest

from wsi_minugan.counting.count import count_mitoses
from wsi_minugan.counting.scores import nottingham_cuts, nottingham_score, tupac16_score
from wsi_minugan.errors import SettingsError


@pytest.mark.parametrize(
    ("diameter", "count", "score"),
    [
        (0.40, 4, 1),
        (0.40, 9, 2),
        (0.40, 10, 3),
        (0.50, 7, 1),
        (0.50, 14, 2),
        (0.52, 15, 2),
        (0.69, 13, 1),
        (0.69, 28, 3),
    ],
)
def test_nottingham_follows_the_table(diameter: float, count: int, score: int) -> None:
    assert nottingham_score(count, diameter) == score


def test_nottingham_cuts_never_fall_with_the_diameter() -> None:
    cuts = [nottingham_cuts(k / 100) for k in range(40, 70)]
    assert cuts == sorted(cuts)


def test_a_diameter_outside_the_table_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"0\.40 and 0\.69"):
        nottingham_cuts(0.3)


@pytest.mark.parametrize(("count", "score"), [(0, 1), (5, 1), (6, 2), (10, 2), (11, 3)])
def test_tupac16_follows_its_definition(count: int, score: int) -> None:
    assert tupac16_score(count) == score


def test_a_count_gives_areas_densities_and_scores() -> None:
    points = np.array([[1000.0 + 10 * k, 2000.0] for k in range(20)] + [[50_000.0, 50_000.0]])
    ten_fields = 10 * math.pi * 0.25**2
    found = count_mitoses(points, 0.25, ten_fields, 0.5, 40.0, lambda x, y, r: 0.75)
    assert (found.mitoses, found.mitoses_per_mm2) == (21, 21 / 40)
    assert found.hotspot.mitoses == 20
    assert found.hotspot.radius_px == pytest.approx(math.sqrt(10) * 250 / 0.25)
    assert found.hotspot.tissue_fraction == 0.75
    assert (found.scores.nottingham, found.scores.tupac16) == (3, 3)


def test_counts_over_another_area_are_brought_to_ten_fields() -> None:
    points = np.tile([100.0, 100.0], (8, 1))
    found = count_mitoses(points, 0.25, 2 * 10 * math.pi * 0.25**2, 0.5)
    assert found.scores.nottingham_count == pytest.approx(4.0)
    assert found.scores.nottingham == 1


def test_no_mitoses_score_one_and_have_no_place() -> None:
    found = count_mitoses(np.zeros((0, 2)), 0.25, 2.0, 0.5)
    assert (found.hotspot.mitoses, found.hotspot.center_x_px, found.scores.nottingham) == (0, None, 1)


@pytest.mark.parametrize(("share", "warned"), [(0.49, True), (0.5, False), (None, False)])
def test_a_hot_spot_mostly_off_the_tissue_is_warned_of(share: float | None, warned: bool) -> None:
    tissue = None if share is None else lambda x, y, r: share
    found = count_mitoses(np.array([[100.0, 100.0]]), 0.25, 2.0, 0.5, 1.0, tissue)
    assert bool(found.warnings) is warned
    assert not warned or "49 %" in found.warnings[0]


@pytest.mark.parametrize("share", [0.49, 0.1])
def test_no_score_is_given_where_the_hot_spot_is_mostly_glass(share: float) -> None:
    found = count_mitoses(np.array([[100.0, 100.0]]), 0.25, 2.0, 0.5, 1.0, lambda x, y, r: share)
    assert (found.scores.nottingham, found.scores.tupac16) == (None, None)
    assert found.scores.nottingham_count > 0
    assert "no scores are given" in found.warnings[0]


@pytest.mark.parametrize(("area_mm2", "score"), [(0.5, None), (1.5, 1), (2.0, 1), (None, 1)])
def test_without_mitoses_a_slide_with_less_tissue_than_the_hot_spot_is_warned_of(
    area_mm2: float | None, score: int | None
) -> None:
    found = count_mitoses(np.zeros((0, 2)), 0.25, 2.0, 0.5, area_mm2, lambda x, y, r: 0.0)
    assert (found.scores.nottingham, found.scores.tupac16) == (score, score)
    small = area_mm2 is not None and area_mm2 < 2.0
    assert bool(found.warnings) is small
    assert not small or f"At most {50 * area_mm2:.0f} %" in found.warnings[0]
