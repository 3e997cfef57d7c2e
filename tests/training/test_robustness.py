"""Images changed as another laboratory or scanner might change them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from minugan_training.cli.main import app
from minugan_training.data.index import write_index
from minugan_training.evaluation.detect import load_field
from minugan_training.evaluation.robustness import CHANGES, changed_field
from minugan_training.importing.importers import import_data

from tests.training.test_evaluate import field

__all__ = ["field"]


@pytest.fixture
def entry(field: Path):
    return import_data("icpr12", field)[0]


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_keeps_mitoses_and_unknown_places(field: Path, entry, name: str) -> None:
    plain, changed = load_field(field, entry), changed_field(field, entry, CHANGES[name])
    factor = CHANGES[name].mpp_factor
    assert changed.sample.image.dtype == np.uint8
    assert len(changed.truth_px) == len(plain.truth_px) == 3
    in_um = (plain.truth_px * plain.sample.mpp * factor, changed.truth_px * changed.sample.mpp)
    np.testing.assert_allclose(*in_um, atol=0.5)
    if factor == 1:
        assert changed.sample.image.shape == plain.sample.image.shape
        assert (changed.sample.image == plain.sample.image).all() == (name == "none")


def test_each_change_does_what_its_name_says(field: Path, entry) -> None:
    plain = load_field(field, entry).sample.image.astype(float)
    mean = {
        name: changed_field(field, entry, c).sample.image.astype(float).mean(axis=(0, 1))
        - plain.mean(axis=(0, 1))
        for name, c in CHANGES.items()
        if c.mpp_factor == 1
    }
    # Haematoxylin takes away red most, eosin green.
    assert mean["haematoxylin-1.4"][0] < -1
    assert mean["haematoxylin-0.7"][0] > 1
    assert mean["eosin-1.5"][1] < -1
    assert mean["eosin-0.6"][1] > 1
    assert abs(mean["eosin-1.5"][0]) < abs(mean["eosin-1.5"][1])
    assert (mean["darker"] < -1).all()
    assert (mean["brighter"] > 1).all()
    assert mean["red"][0] == pytest.approx(0, abs=0.01)
    assert mean["red"][1] < -5
    assert mean["blue"][0] < mean["blue"][1] < -1

    def detail(name: str) -> float:
        image = changed_field(field, entry, CHANGES[name]).sample.image.astype(float)
        return float(np.abs(np.diff(image, axis=1)).mean())

    assert detail("blur") < detail("none") < detail("sharpen")


@pytest.mark.slow
def test_the_command_prints_and_writes_one_line_for_each_change(field: Path, tmp_path: Path, entry) -> None:
    write_index(tmp_path / "index.csv", [entry.model_copy(update={"split": "val"})])
    call = ["robustness", "--index", str(tmp_path / "index.csv"), "--root", str(field)]
    out = tmp_path / "changed.json"
    done = CliRunner().invoke(
        app, [*call, "--change", "none", "--change", "haematoxylin-1.4", "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["none", "haematoxylin's density times 1.4"]
    found = json.loads(out.read_text())
    assert [f["change"] for f in found] == ["none", "haematoxylin-1.4"]
    assert found[0]["recall"] > 0
    assert found[0]["patients"][0]["truths"] == 3


def test_a_change_that_is_not_known_is_refused_with_those_that_are(
    field: Path, tmp_path: Path, entry
) -> None:
    write_index(tmp_path / "index.csv", [entry])
    call = ["robustness", "--index", str(tmp_path / "index.csv"), "--root", str(field), "--change", "purple"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2
    assert "no change is named purple" in done.output
    assert "haematoxylin-1.4" in done.output


def test_the_help_names_every_change() -> None:
    words = " ".join(CliRunner().invoke(app, ["robustness", "--help"], terminal_width=200).output.split())
    assert f"One of: {', '.join(CHANGES)}." in words.replace("- ", "-")
