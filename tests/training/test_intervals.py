"""Errors by patient for the card, and intervals of patients that were left out."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from minugan_training.evaluation.intervals import LEAST_COVERED, draw_intervals, leave_one_out

from wsi_minugan.errors import DataError
from wsi_minugan.minugan.card import ModelReliability, PatientFigures


def drawn(count: int, seed: int) -> list[PatientFigures]:
    """Draw patients that differ in recall, false positives and density."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        truths = int(rng.poisson(4 * rng.gamma(1.5, 8)))
        hits = int(rng.binomial(truths, rng.beta(14, 6)))
        wrong = int(rng.poisson(4 * rng.gamma(2, 1.2)))
        out.append(
            PatientFigures(
                patient=f"p{k}",
                area_mm2=4.0,
                true_positives=hits,
                false_positives=wrong,
                false_negatives=truths - hits,
            )
        )
    return out


def test_intervals_of_patients_left_out_hold_nine_times_in_ten() -> None:
    found = [f.covered for seed in range(6) for f in leave_one_out(drawn(12, seed))]
    assert np.mean(found) >= LEAST_COVERED


def test_a_patient_unlike_all_others_is_outside() -> None:
    usual = drawn(10, 0)
    odd = PatientFigures(
        patient="odd", area_mm2=4.0, true_positives=0, false_positives=1, false_negatives=300
    )
    assert not leave_one_out([*usual, odd])[-1].covered


def test_the_chart_has_a_row_for_each_patient(tmp_path: Path) -> None:
    heights = []
    for n in (5, 12):
        draw_intervals(tmp_path / f"{n}.png", leave_one_out(drawn(n, 0)))
        heights.append(cv2.imread(str(tmp_path / f"{n}.png")).shape[0])
    assert heights[1] - heights[0] == pytest.approx(7 * 0.32 * 110, abs=2)


def test_three_patients_are_too_few_to_leave_one_out() -> None:
    with pytest.raises(DataError, match="4 are needed"):
        leave_one_out(drawn(3, 0))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(900)
def test_the_command_measures_real_fields_and_writes_what_the_card_takes(
    tmp_path: Path, shared: Path
) -> None:
    def train(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = "from minugan_training.cli.main import main; main()"
        call = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(call, capture_output=True, text=True, check=False, timeout=1700)

    done = train("data", "import", "shared", shared / "data", "-o", tmp_path / "index.csv")
    assert done.returncode == 0, done.stderr
    done = train(
        *("intervals", "--index", tmp_path / "index.csv", "--root", shared / "data", "--dataset", "mitos14"),
        *("--fields", 1, "--reader-f1", 0.74, "-o", tmp_path / "reliability.json"),
    )
    assert done.returncode in {0, 1}, done.stderr
    assert "of 6 patients" in done.stdout
    found = ModelReliability.model_validate(json.loads((tmp_path / "reliability.json").read_text()))
    assert len(found.operating_points["balanced"].patients) == 6
    assert found.reader_f1 == 0.74
