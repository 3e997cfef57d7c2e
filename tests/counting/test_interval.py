"""The interval of the true number: it covers as often as it says, also for the window that was chosen for its count."""

import numpy as np
import pytest

from wsi_minugan.counting.interval import (
    Found,
    PatientCounts,
    Predicted,
    Predictive,
    of_another_reader,
    predict,
)

RECALL, STRENGTH = 0.75, 20.0
FALSE_RATE, FALSE_SHAPE = 2.5, 2.0
DENSITY, DENSITY_SHAPE = 12.0, 1.5


def drawn_patients(rng: np.random.Generator, count: int, area_mm2: float = 3.0) -> list[PatientCounts]:
    """Draw what a card would hold."""
    recall = rng.beta(RECALL * STRENGTH, (1 - RECALL) * STRENGTH, count)
    rate = rng.gamma(FALSE_SHAPE, FALSE_RATE / FALSE_SHAPE, count)
    truths = rng.poisson(rng.gamma(DENSITY_SHAPE, DENSITY / DENSITY_SHAPE, count) * area_mm2)
    hits, wrong = rng.binomial(truths, recall), rng.poisson(rate * area_mm2)
    return [
        PatientCounts(area_mm2, int(h), int(w), int(t - h))
        for h, w, t in zip(hits, wrong, truths, strict=True)
    ]


def drawn_slide(rng: np.random.Generator, tiles: int, uneven: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw the true and the found numbers of a new patient's tiles of 2 mm2."""
    recall = rng.beta(RECALL * STRENGTH, (1 - RECALL) * STRENGTH)
    rate = rng.gamma(FALSE_SHAPE, FALSE_RATE / FALSE_SHAPE)
    density = rng.gamma(DENSITY_SHAPE, DENSITY / DENSITY_SHAPE)
    truths = rng.poisson(density * rng.gamma(uneven, 1 / uneven, tiles) * 2.0)
    return truths, rng.binomial(truths, recall) + rng.poisson(rate * 2.0, tiles)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_interval_covers_93_to_97_percent_of_ten_thousand_windows() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(100):
        predictive = Predictive(drawn_patients(rng, 12), 800)
        known: dict[int, tuple[int, int]] = {}
        for _ in range(100):
            truths, found = drawn_slide(rng, 1, 3.0)
            n = int(found[0])
            if n not in known:
                known[n] = predictive.of(Found(n, 2.0)).interval()
            covered.append(known[n][0] <= truths[0] <= known[n][1])
    assert len(covered) == 10_000
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_interval_of_the_window_with_the_most_covers_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for k in range(600):
        if k % 20 == 0:
            predictive = Predictive(drawn_patients(rng, 12), 800)
        truths, found = drawn_slide(rng, 30, 3.0)
        best = int(found.argmax())
        tiles = np.stack([found, np.full(30, 2.0)], axis=1)
        low, high = predictive.of(Found(int(found[best]), 2.0, tiles)).interval()
        covered.append(low <= truths[best] <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_window_with_the_most_is_drawn_back_to_an_even_slide() -> None:
    patients = drawn_patients(np.random.default_rng(2), 12)
    even = np.array([[6.0, 2.0]] * 40)
    found = predict(Found(16, 2.0, even), patients)
    alone = predict(Found(16, 2.0), patients)
    assert found.expected < alone.expected
    assert found.optimism == pytest.approx(alone.expected - found.expected, abs=1e-3)
    assert alone.optimism is None


def test_more_patients_and_better_ones_make_it_narrower() -> None:
    good = [PatientCounts(5.0, 95, 3, 5)] * 12
    mixed = [PatientCounts(5.0, 95, 3, 5), PatientCounts(5.0, 30, 60, 70), PatientCounts(5.0, 60, 2, 40)]
    narrow, wide = (predict(Found(30, 2.0), p).interval() for p in (good, mixed))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])
    assert narrow[0] <= 31 <= narrow[1]


def test_the_same_input_gives_the_same_interval() -> None:
    patients = drawn_patients(np.random.default_rng(3), 8)
    assert predict(Found(9, 2.0), patients).interval() == predict(Found(9, 2.0), patients).interval()


def test_nothing_found_can_still_be_something_missed() -> None:
    low, high = predict(Found(0, 2.0), drawn_patients(np.random.default_rng(4), 8)).interval()
    assert low == 0 < high


def test_sure_objects_raise_and_doubtful_ones_lower_the_number() -> None:
    patients = [
        PatientCounts(5.0, 50, 40, 10),
        PatientCounts(5.0, 40, 60, 20),
        PatientCounts(5.0, 60, 50, 12),
    ]
    means = [
        predict(Found(20, 2.0, probabilities=np.full(20, p), prevalence=0.5), patients).expected
        for p in (0.95, 0.5, 0.1)
    ]
    plain = predict(Found(20, 2.0), patients).expected
    assert means[0] > means[1] > means[2]
    assert means[1] == pytest.approx(plain, rel=0.02)


def test_fewer_than_three_patients_show_no_spread() -> None:
    with pytest.raises(ValueError, match="3 patients"):
        Predictive([PatientCounts(1.0, 1, 1, 1)] * 2)


def test_one_other_reader_widens_the_interval_and_not_the_mean() -> None:
    certain = Predicted(np.full(4000, 20))
    other = of_another_reader(certain, 0.74)
    low, high = other.interval()
    assert other.expected == pytest.approx(20, abs=0.3)
    assert low < 17 < 23 < high
