"""Counting again: a correction takes area, tissue and resolution from its slide's folder, and says what it counted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

ID = "synthetic slide"


def corrected_from(folder: Path, path: Path, **classes: str) -> Path:
    """Write a slide's mitoses as QuPath would export them: a bare array, and without what it counts from."""
    features = json.loads((folder / "mitoses.geojson").read_text())["features"]
    mitoses = [f for f in features if f["properties"]["objectType"] == "detection"]
    for feature, name in zip(mitoses, classes.values(), strict=False):
        feature["properties"]["classification"]["name"] = name
    path.write_text(json.dumps(features))
    return path


def counts(run_command: Any, *arguments: Any) -> tuple[dict[str, Any], str]:
    done = run_command("count", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_correction_is_counted_over_its_slides_area_and_tissue(
    finished: Path, tmp_path: Path, run_command
) -> None:
    path = corrected_from(finished / ID, tmp_path / "corrected.geojson", a="Mitosis: Negative", b="Tumor")
    before = json.loads((finished / ID / "count.json").read_text())
    for order in ([finished / ID, path], [path, finished / ID]):
        after, told = counts(run_command, *order)
        assert after["mitoses"] == before["mitoses"] - 2
        assert (after["area_mm2"], after["mpp"]) == (pytest.approx(before["area_mm2"]), before["mpp"])
        assert after["hotspot"]["tissue_fraction"] is not None
        assert after["interval"] is None
        assert "reviewed" in after["no_interval"]
        assert f"Counted, by class: {after['mitoses']} Mitosis." in told
        assert "High-power field, 1 Hot spot, 1 Mitosis: Negative, 1 Tumor." in told


def test_a_file_that_was_changed_in_its_folder_has_no_interval_either(
    finished: Path, tmp_path: Path, run_command
) -> None:
    shutil.copytree(finished / ID, tmp_path / ID)
    assert counts(run_command, tmp_path / ID)[0]["interval"] is not None
    assert counts(run_command, tmp_path / ID, finished / ID / "mitoses.geojson")[0]["interval"] is not None
    corrected_from(finished / ID, tmp_path / ID / "mitoses.geojson", a="Mitosis: Negative")
    assert counts(run_command, tmp_path / ID)[0]["interval"] is None


@pytest.mark.parametrize("both", ["folders", "files"])
def test_two_folders_or_two_files_are_refused(finished: Path, tmp_path: Path, run_command, both: str) -> None:
    path = corrected_from(finished / ID, tmp_path / "corrected.geojson")
    done = run_command("count", *([finished / ID] * 2 if both == "folders" else [path] * 2))
    assert done.returncode == 2
    assert "one slide's folder and one GeoJSON" in done.stderr


def test_a_models_errors_are_those_of_the_run_and_of_no_model_that_shares_its_first_stage(
    finished: Path, tmp_path: Path, run_command
) -> None:
    folder = tmp_path / ID
    shutil.copytree(finished / ID, folder)
    sealed = json.loads((folder / "manifest.json").read_text())
    before = json.loads((folder / "count.json").read_text())
    assert counts(run_command, folder)[0]["interval"] == before["interval"] is not None
    # Older results name their model only. One with the same generator and another classifier is another model.
    del sealed["model_errors"]
    (folder / "manifest.json").write_text(json.dumps(sealed))
    assert counts(run_command, folder)[0]["interval"] == before["interval"]
    sealed["model"]["digest"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(sealed))
    after = counts(run_command, folder)[0]
    assert after["interval"] is None
    assert "is not here" in after["no_interval"]
