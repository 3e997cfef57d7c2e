"""Calibrated scores, and thresholds that no single patient decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minugan_training.cli.second_stage import _false_positives_by_patient
from minugan_training.evaluation.calibration import (
    Calibration,
    PatientCandidates,
    best_threshold,
    expected_calibration_error,
    f1_at,
    fit_calibration,
    froc,
    leave_one_out,
)
from minugan_training.evaluation.operating_point import PointFigures, _uncalibrated, measured_logit

from wsi_minugan.errors import DataError
from wsi_minugan.minugan.bundle import find_bundle, load_bundle


def patient(seed: int, n: int = 4000, slope: float = 2.0, shift: float = -1.0) -> PatientCandidates:
    """Return candidates of which a logit x is a mitosis with probability sigmoid(slope x + shift)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 2, (n, 1))
    hit = rng.random(n) < 1 / (1 + np.exp(-(slope * x[:, 0] + shift)))
    return PatientCandidates(x, hit, int(hit.sum()), 5.0)


def test_a_calibrated_score_of_one_half_means_half() -> None:
    patients = [patient(k) for k in range(4)]
    calibration = fit_calibration(patients)
    assert calibration.weights[0] == pytest.approx(2.0, abs=0.15)
    assert calibration.bias == pytest.approx(-1.0, abs=0.15)
    new = patient(99)
    p = calibration.probability(new.logits)
    near_half = np.abs(p - 0.5) < 0.1
    assert new.hit[near_half].mean() == pytest.approx(0.5, abs=0.08)
    assert expected_calibration_error(p, new.hit) < 0.03
    assert expected_calibration_error(p**3, new.hit) > 0.05


def test_a_patient_with_many_candidates_has_no_more_say_than_one_with_few() -> None:
    few, many = patient(1, 1000, shift=-3.0), patient(2, 20_000, shift=1.0)
    bias = fit_calibration([few, many]).bias
    assert -1.8 < bias < -0.2


def test_the_threshold_is_that_of_the_mean_over_patients() -> None:
    patients = [patient(k) for k in range(3)]
    calibration = fit_calibration(patients)
    balanced = best_threshold(patients, calibration)
    told = [(p, calibration.probability(p.logits)) for p in patients]
    mean = {
        t: np.mean([f1_at(p, s, t) for p, s in told]) for t in (balanced - 0.25, balanced, balanced + 0.25)
    }
    assert max(mean, key=mean.__getitem__) == balanced
    assert best_threshold(patients, calibration, 2.0) < balanced < best_threshold(patients, calibration, 0.5)


def test_where_f1_is_flat_the_threshold_lies_in_the_middle() -> None:
    scores = np.repeat([0.2, 0.8], 10)
    logits = np.log(scores / (1 - scores))[:, None]
    patients = [PatientCandidates(logits, scores > 0.5, 10, 5.0) for _ in range(2)]
    assert best_threshold(patients, Calibration((1.0,), 0.0)) == pytest.approx(0.5, abs=0.011)


def test_a_patient_left_out_has_no_say_in_its_own_threshold() -> None:
    patients = {str(k): patient(k) for k in range(3)}
    before = leave_one_out(patients)["0"][0]
    patients["0"] = patient(7, shift=5.0)
    assert leave_one_out(patients)["0"][0] == before


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.floats(0.1, 10))
def test_recall_grows_with_the_false_positives_that_are_allowed(
    found: list[tuple[float, bool]], area_mm2: float
) -> None:
    score, hit = np.array([f[0] for f in found]), np.array([f[1] for f in found], bool)
    recall = list(froc(PatientCandidates(score[:, None], hit, int(hit.sum()) + 1, area_mm2), score).values())
    assert recall == sorted(recall)
    assert all(0 <= r < 1 for r in recall)


def test_a_patients_false_positives_are_those_of_all_its_scanners_together() -> None:
    usual = {"true_positives": 0, "false_negatives": 0, "truths": 0, "f1": 0.0, "froc": {}}
    rows = [
        PointFigures(
            patient=p, scanner=s, false_positives=n, area_mm2=a, false_positives_per_mm2=n / a, **usual
        )
        for p, s, n, a in (("a", "x", 6, 1.0), ("a", "y", 0, 2.0), ("b", "x", 3, 0.5))
    ]
    assert _false_positives_by_patient(rows) == pytest.approx([2.0, 6.0])


def test_too_few_patients_with_mitoses_are_told() -> None:
    none = PatientCandidates(np.zeros((40, 1)), np.zeros(40, bool), 0, 5.0)
    with pytest.raises(DataError, match="two patients or more"):
        leave_one_out({"a": patient(1), "b": none})
    with pytest.raises(DataError, match="no candidate"):
        fit_calibration([PatientCandidates(np.zeros((0, 1)), np.zeros(0, bool), 3, 5.0)])


@pytest.mark.parametrize("logit", [-9.0, -4.0, 0.0, 5.0, 12.0])
def test_classifiers_that_are_sure_are_measured_too(logit: float) -> None:
    # Scores are bytes, and below the card's cut there is no candidate.
    bundle = load_bundle(find_bundle("default"))
    stage = _uncalibrated(bundle).card.candidate_stage
    assert stage is not None
    score = round(255 * stage.probability(logit, 0.5))
    assert score >= round(255 * bundle.card.thresholds.mitosis)
    assert measured_logit(score) == pytest.approx(logit, abs=0.7)
