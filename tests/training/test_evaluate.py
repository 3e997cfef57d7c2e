"""A model is judged on any folder in a known layout."""

import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner
from minugan_training.choose import NUCLEUS_CUTS, choose, choose_nuclei
from minugan_training.cli import app
from minugan_training.importers import import_data

from tests.training.test_data import pool, write
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.slides.drawn import Drawing

SIDE_PX = 640


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """One drawn field in ICPR 2012's layout, with an outline for each of its mitoses."""
    drawing = Drawing(SIDE_PX, SIDE_PX, seed=5, mitoses=3, tissue_fraction=0.8)
    image, classes = drawing.draw_with_classes(Box(0, 0, SIDE_PX, SIDE_PX))
    write(tmp_path / "field" / "A07_01.bmp", image)
    labels = cv2.connectedComponents((classes == 2).astype("uint8"))[1]
    lines = [
        ",".join(f"{x},{y}" for y, x in zip(*(labels == k).nonzero(), strict=True))
        for k in range(1, labels.max() + 1)
    ]
    (tmp_path / "field" / "A07_01.csv").write_text("\n".join(lines))
    return tmp_path / "field"


def test_evaluate_judges_every_image_of_a_folder(field: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(field), "-o", str(tmp_path / "scores.json")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    found = {r["figure"]: r["value"] for r in rows if r["data"] == "full fields, all"}
    assert {"F1", "precision", "recall", "false positives per mm2", "average precision"} <= found.keys()
    assert found["recall"] > 0


def test_evaluate_without_data_says_what_it_needs() -> None:
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code == 2
    assert "--data" in done.output


def test_cuts_are_chosen_by_f1_on_the_choosing_fields_alone(field: Path) -> None:
    predictor = Predictor(load_bundle(find_bundle("default")), "cpu")
    entries = import_data("icpr12", field)
    with pytest.raises(DataError, match="no full fields"):
        choose(predictor, field, [e.model_copy(update={"split": "test"}) for e in entries], 7.5)
    found = choose(predictor, field, [e.model_copy(update={"split": "val"}) for e in entries], 7.5)
    assert [c.found.f1 for c in found] == sorted((c.found.f1 for c in found), reverse=True)
    assert found[0].found.f1 > 0
    outlined = len((field / "A07_01.csv").read_text().splitlines())
    assert all(c.found.tp + c.found.fn == outlined for c in found)


def test_the_nucleus_cut_is_chosen_by_dice_on_training_images(tmp_path: Path) -> None:
    p = pool(tmp_path)
    found = choose_nuclei(Predictor(load_bundle(find_bundle("default")), "cpu"), tmp_path, p.entries)
    assert sorted(cut for cut, _ in found) == sorted(NUCLEUS_CUTS)
    assert [v for _, v in found] == sorted((v for _, v in found), reverse=True)
    assert found[0][1] > 0.3
