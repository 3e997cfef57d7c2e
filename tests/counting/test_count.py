"""Scores and count.json."""

import math

import numpy as np
import pytest

from wsi_minugan.counting.count import count_mitoses
from wsi_minugan.counting.interval import PatientCounts
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.scores import nottingham_cuts, nottingham_score, tupac16_score
from wsi_minugan.counting.settings import Ground, Options, Reliability
from wsi_minugan.errors import SettingsError


class Even(TissueRaster):
    """Tissue of which every window has the same share."""

    def __init__(self, even: float) -> None:
        super().__init__(np.ones((10, 10), bool), 8000.0, 80_000, 80_000)
        object.__setattr__(self, "even", even)

    def share(self, *_: object) -> float:
        return self.even


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


@pytest.mark.slow
def test_a_count_gives_areas_densities_and_scores() -> None:
    points = np.array([[1000.0 + 10 * k, 2000.0] for k in range(20)] + [[50_000.0, 50_000.0]])
    ten_fields = 10 * math.pi * 0.25**2
    found = count_mitoses(points, 0.25, ten_fields, 0.5, 40.0, Ground(Even(0.75)))
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
    ground = None if share is None else Ground(Even(share))
    found = count_mitoses(np.array([[100.0, 100.0]]), 0.25, 2.0, 0.5, 1.0, ground)
    assert bool(found.warnings) is warned
    assert not warned or "49 %" in found.warnings[0]


@pytest.mark.parametrize("share", [0.49, 0.1])
def test_no_score_is_given_where_the_hot_spot_is_mostly_glass(share: float) -> None:
    known = Reliability("balanced", (PatientCounts(2.0, 8, 2, 2),) * 4)
    ground = Ground(Even(share), np.array([0.9]), reliability=known)
    found = count_mitoses(np.array([[100.0, 100.0]]), 0.25, 2.0, 0.5, 1.0, ground)
    assert (found.scores.nottingham, found.scores.tupac16) == (None, None)
    assert found.interval is not None
    for scored in (found.interval, *found.sensitivity):
        assert (scored.nottingham, scored.tupac16) == (None, None)
    assert found.scores.nottingham_count > 0
    assert "no scores are given" in found.warnings[0]


@pytest.mark.parametrize(("area_mm2", "score"), [(0.5, None), (1.5, 1), (2.0, 1), (None, 1)])
def test_without_mitoses_a_slide_with_less_tissue_than_the_hot_spot_is_warned_of(
    area_mm2: float | None, score: int | None
) -> None:
    found = count_mitoses(np.zeros((0, 2)), 0.25, 2.0, 0.5, area_mm2, Ground(Even(0.0)))
    assert (found.scores.nottingham, found.scores.tupac16) == (score, score)
    small = area_mm2 is not None and area_mm2 < 2.0
    assert bool(found.warnings) is small
    assert not small or f"At most {50 * area_mm2:.0f} %" in found.warnings[0]


PATIENTS = tuple(PatientCounts(3.0, 30 + k, 6 + k, 12 - k) for k in range(8))


def test_a_card_with_figures_gives_an_interval_and_the_chance_of_each_score() -> None:
    points = np.array([[1000.0 + 10 * k, 2000.0] for k in range(12)])
    found = count_mitoses(points, 0.25, 2.0, 0.5, 40.0, Ground(reliability=Reliability("balanced", PATIENTS)))
    assert found.interval is not None
    assert found.interval.low <= 12 <= found.interval.high
    assert found.no_interval is None
    assert sum(found.interval.tupac16.values()) == pytest.approx(1, abs=1e-3)
    assert found.interval.optimism is None  # the slide's other parts are not known


def test_near_a_cut_off_the_count_says_so() -> None:
    ground = Ground(reliability=Reliability("balanced", PATIENTS))
    near, far = (
        count_mitoses(np.tile([100.0, 100.0], (n, 1)), 0.25, 2.0, 0.5, 40.0, ground) for n in (10, 60)
    )
    assert any("near a cut-off" in w for w in near.warnings)
    assert not far.warnings


def test_without_figures_there_is_no_interval_and_a_reason() -> None:
    found = count_mitoses(np.array([[100.0, 100.0]]), 0.25, 2.0, 0.5)
    assert found.interval is None
    assert found.no_interval == "No model is known for these mitoses, so the true number cannot be bounded."


def test_fields_and_hot_spots_are_in_the_count() -> None:
    points = np.random.default_rng(0).uniform(0, 20_000, (60, 2))
    found = count_mitoses(points, 0.25, 2.0, 0.5, 25.0, options=Options("rectangle", 4 / 3, hotspots=3))
    assert found.fields is not None
    assert len(found.fields.counts) == len(found.fields.centers_px) == 10
    assert sum(found.fields.counts) == found.fields.total <= found.fields.upper_bound
    assert found.hotspot == found.hotspots[0]
    assert found.hotspot.width_px == pytest.approx(4 / 3 * found.hotspot.height_px)
    assert [s.mitoses for s in found.hotspots] == sorted((s.mitoses for s in found.hotspots), reverse=True)
    assert found.stability is not None
    assert found.stability.places >= 1


def test_the_curve_starts_at_the_runs_threshold_and_falls() -> None:
    rng = np.random.default_rng(1)
    found = count_mitoses(
        rng.uniform(0, 9000, (40, 2)), 0.25, 2.0, 0.5, 25.0, Ground(scores=rng.uniform(0.6, 1, 40))
    )
    curve = [s.mitoses for s in found.sensitivity]
    assert curve[0] == 40
    assert curve == sorted(curve, reverse=True)
    assert found.sensitivity[0].hotspot_mitoses == found.hotspot.mitoses


def test_the_method_in_words_says_how_fields_and_hot_spot_were_looked_for() -> None:
    points = np.random.default_rng(0).uniform(0, 20_000, (30, 2))
    free, adjacent, held = (
        count_mitoses(points, 0.25, 2.0, 0.5, 25.0, options=o).method
        for o in (Options(), Options(fields="adjacent"), Options(min_tissue=0.9))
    )
    assert "integer program" in free
    assert "tissue mask" not in free
    assert "each touching another, grown for the highest total (beam search)" in adjacent
    assert "integer program" not in adjacent
    assert "among those with 90 % of analysed tissue or more, or with the most that any place has" in held
    assert "else the places are the tissue mask's cells" in held


def test_a_further_hot_spot_with_less_tissue_than_asked_for_is_told() -> None:
    analysed = np.zeros((200, 200), bool)
    analysed[:100] = True
    points = np.array([[800.0, 500.0]] * 5 + [[800.0, 1600.0]] * 3)
    found = count_mitoses(
        points,
        1.0,
        0.2,
        0.1,
        1.0,
        Ground(TissueRaster(analysed, 8.0, 1600, 1600)),
        Options(min_tissue=0.9, hotspots=2),
    )
    first, second = found.hotspots
    assert first.tissue_fraction >= 0.9 > second.tissue_fraction
    (told,) = [w for w in found.warnings if "hot spot 2" in w]
    assert f"has {100 * second.tissue_fraction:.0f} %" in told
