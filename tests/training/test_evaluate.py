"""A model is judged on any folder in a known layout."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from minugan_training.cli.main import app
from minugan_training.data.index import Entry, points_text
from minugan_training.data.labels import load_sample, mitosis_truth
from minugan_training.evaluation.detect import Candidates, crops_of, full_fields, patches_among
from minugan_training.evaluation.evaluate import Figure, _Evaluation, evaluate_model
from minugan_training.evaluation.thresholds import (
    NUCLEUS_THRESHOLDS,
    _count,
    _Field,
    tune_nuclei,
    tune_thresholds,
)
from minugan_training.importing.importers import import_data

from tests.training.test_data import pool, write
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import Bundle, find_bundle, load_bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.pipeline.stages import object_thresholds
from wsi_minugan.slides.synthetic import SyntheticSlide

pytestmark = pytest.mark.slow  # each test scores images by a network

SIDE_PX = 640


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn field in ICPR 2012's layout, with an outline for each of its mitoses."""
    folder = tmp_path_factory.mktemp("data") / "field"
    drawing = SyntheticSlide(SIDE_PX, SIDE_PX, seed=2, mitoses=3, tissue_fraction=0.8)
    image, classes = drawing.draw_with_classes(Box(0, 0, SIDE_PX, SIDE_PX))
    write(folder / "A07_01.bmp", image)
    pixels = np.argwhere(classes == 2)[:, ::-1]
    # A mitosis may be in pieces: each pixel is of the one whose centre is nearest.
    whose = np.hypot(*(pixels[:, None] - drawing.mitoses_xy_px).transpose(2, 0, 1)).argmin(axis=1)
    lines = [",".join(f"{x},{y}" for x, y in pixels[whose == k]) for k in range(3)]
    (folder / "A07_01.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def usual(field: Path) -> dict[tuple[str, str], Figure]:
    """Return the figures of the field."""
    return judged(field, import_data("icpr12", field))


def test_evaluate_judges_every_image_of_a_folder(field: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", str(field), "-o", str(tmp_path / "scores.json")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    found = {r["figure"]: r["value"] for r in rows if r["data"] == "full fields, all"}
    assert {"F1", "precision", "recall", "false positives per mm2", "average precision"} <= found.keys()
    assert found["recall"] > 0


def judged(root: Path, entries: list[Entry], **changes: float) -> dict[tuple[str, str], Figure]:
    bundle = load_bundle(find_bundle("default"))
    cuts = bundle.card.thresholds.model_copy(update=changes)
    bundle = replace(bundle, card=bundle.card.model_copy(update={"thresholds": cuts}))
    return {(r.data, r.figure): r for r in evaluate_model(bundle, root, entries, 7.5, ("",)).rows}


def test_intervals_are_by_patient_where_there_are_several(field: Path) -> None:
    one = import_data("icpr12", field)[0]
    twice = [one, one.model_copy(update={"x_px": 1, "width_px": SIDE_PX - 1})]
    same = judged(field, twice)["full fields, all", "recall"]
    assert (same.groups, same.by) == (2, "image")
    three = [*twice, one.model_copy(update={"patient": "another"})]
    others = judged(field, three)["full fields, all", "recall"]
    assert (others.groups, others.by, others.images) == (2, "patient", 3)


def test_average_precision_does_not_depend_on_the_cards_cuts(field: Path) -> None:
    entries = import_data("icpr12", field)
    low, high = (judged(field, entries, mitosis=cut) for cut in (0.5, 1.0))
    key = "full fields, all", "average precision"
    assert low[key] == high[key]
    assert low[key].value > 0
    assert low["full fields, all", "recall"].value > high["full fields, all", "recall"].value


def test_outlines_made_from_centres_are_not_compared_with(
    field: Path, usual: dict[tuple[str, str], Figure]
) -> None:
    entry = import_data("icpr12", field)[0]
    centres = mitosis_truth(field, entry, load_sample(field, entry))
    points = {"mitoses_kind": "points", "mitoses_truth": points_text([tuple(c) for c in centres])}
    key = "full fields, all", "Dice of true positives"
    assert key in usual
    assert key not in judged(field, [entry.model_copy(update=points)])


def test_a_true_positive_is_compared_with_all_pieces_of_its_outline(
    field: Path, usual: dict[tuple[str, str], Figure], tmp_path: Path
) -> None:
    key = "full fields, all", "Dice of true positives"
    field = shutil.copytree(field, tmp_path / "field")
    lines = (field / "A07_01.csv").read_text().splitlines()
    pixels = [np.array(line.split(","), int).reshape(-1, 2) for line in lines]
    # The same outlines without a row of pixels in their middle: in two pieces now, but no less than they were.
    cut = [xy[xy[:, 1] != int(xy[:, 1].mean())] for xy in pixels]
    (field / "A07_01.csv").write_text("\n".join(",".join(map(str, xy.ravel())) for xy in cut))
    again = judged(field, import_data("icpr12", field))
    assert again[key].value == pytest.approx(usual[key].value, abs=0.1)


def test_what_compression_costs_is_measured_and_told(field: Path, tmp_path: Path) -> None:
    found = {}
    for jpeg in (None, 90, 2):
        out = tmp_path / f"{jpeg}.json"
        asked = ["--jpeg", str(jpeg)] if jpeg else []
        done = CliRunner().invoke(app, ["evaluate", "--data", str(field), "-o", str(out), *asked])
        assert done.exit_code == 0, done.output
        assert ("JPEG" in done.output) == bool(jpeg)
        figures = json.loads(out.read_text())
        assert figures["jpeg"] == jpeg
        found[jpeg] = {r["figure"]: r["value"] for r in figures["rows"] if r["data"] == "full fields, all"}
    assert found[2]["F1"] < found[90]["F1"] <= found[None]["F1"]


def test_nuclei_have_an_interval_by_patient_where_there_are_several(tmp_path: Path) -> None:
    one = pool(tmp_path).entries[0].model_copy(update={"split": ""})
    other = one.model_copy(update={"patient": "another", "x_px": 40, "width_px": 280})
    key = "nuclei", "Dice of nuclei"
    alone = judged(tmp_path, [one])[key]
    assert (alone.low, alone.groups, alone.by) == (None, 1, "image")
    both = judged(tmp_path, [one, one, other])[key]
    assert (both.groups, both.by, both.images) == (2, "patient", 3)
    assert both.low is not None
    assert both.low < both.value


def test_a_scanner_that_is_not_known_has_no_row_of_its_own(tmp_path: Path) -> None:
    found = judged(tmp_path, [e.model_copy(update={"split": ""}) for e in pool(tmp_path).entries])
    assert all(not data.endswith(", ") for data, _ in found)


@pytest.mark.parametrize(("mpp", "kind"), [(0.25, crops_of), (0.5, patches_among), (0.8, full_fields)])
def test_an_image_is_a_crop_or_a_field_by_its_size_at_the_models_resolution(
    mpp: float, kind: Callable[[list[Entry]], list[Entry]], tmp_path: Path
) -> None:
    write(tmp_path / "a.png", SyntheticSlide(200, 200, seed=5, mitoses=1).draw(Box(0, 0, 200, 200)))
    entry = Entry(
        dataset="d", image="a.png", width_px=200, height_px=200, mpp=mpp, patient="p", mitoses="known",
        mitoses_kind="points", mitoses_truth="100 100", nuclei="unknown",
    )  # fmt: skip
    assert [f for f in (crops_of, patches_among, full_fields) if f([entry])] == [kind]
    assert judged(tmp_path, [entry])


def test_images_of_one_patch_are_judged_by_themselves(tmp_path: Path) -> None:
    found = judged(tmp_path, [e.model_copy(update={"split": ""}) for e in pool(tmp_path).entries])
    assert ("patches, all", "F1") in found
    assert ("full fields, all", "F1") not in found


def test_nothing_to_judge_is_an_error(field: Path) -> None:
    entries = [e.model_copy(update={"split": "train"}) for e in import_data("icpr12", field)]
    with pytest.raises(DataError, match="nothing to judge"):
        judged(field, entries)


def test_evaluate_without_data_says_what_it_needs() -> None:
    done = CliRunner().invoke(app, ["evaluate"])
    assert done.exit_code == 2
    assert "--data" in done.output


def test_cuts_are_chosen_by_f1_on_the_choosing_fields_alone(field: Path) -> None:
    predictor = Predictor(load_bundle(find_bundle("default")), "cpu")
    entries = import_data("icpr12", field)
    with pytest.raises(DataError, match="no full fields"):
        tune_thresholds(predictor, field, [e.model_copy(update={"split": "test"}) for e in entries], 7.5)
    found = tune_thresholds(predictor, field, [e.model_copy(update={"split": "val"}) for e in entries], 7.5)
    assert [c.found.f1 for c in found] == sorted((c.found.f1 for c in found), reverse=True)
    assert found[0].found.f1 > 0
    outlined = len((field / "A07_01.csv").read_text().splitlines())
    assert all(c.found.tp + c.found.fn == outlined for c in found)


def test_the_recall_of_a_crop_is_by_its_truth_of_whatever_kind(field: Path) -> None:
    predictor = Predictor(load_bundle(find_bundle("default")), "cpu")
    entry = import_data("icpr12", field)[0].model_copy(update={"split": "val"})
    x, y = mitosis_truth(field, entry, load_sample(field, entry))[0]
    left, top = (min(max(0, int(v) - 60), SIDE_PX - 120) for v in (x, y))
    there = {"x_px": left, "y_px": top, "width_px": 120, "height_px": 120}
    found = tune_thresholds(predictor, field, [entry, entry.model_copy(update=there)], 7.5)
    assert max(c.crop_recall or 0.0 for c in found) > 0


def test_the_nucleus_cut_is_chosen_by_dice_on_training_images(tmp_path: Path) -> None:
    p = pool(tmp_path)
    found = tune_nuclei(Predictor(load_bundle(find_bundle("default")), "cpu"), tmp_path, p.entries)
    assert sorted(cut for cut, _ in found) == sorted(NUCLEUS_THRESHOLDS)
    assert [v for _, v in found] == sorted((v for _, v in found), reverse=True)
    assert found[0][1] > 0.3


def bundle_with(**changes: float) -> Bundle:
    bundle = load_bundle(find_bundle("default"))
    cuts = bundle.card.thresholds.model_copy(update=changes)
    return replace(bundle, card=bundle.card.model_copy(update={"thresholds": cuts, "operating_points": {}}))


@pytest.mark.parametrize("peak", [0.5, 0.9, 0.95, 0.97])
def test_a_figure_and_a_choice_keep_the_objects_that_a_run_keeps(tmp_path: Path, peak: float) -> None:
    bundle = bundle_with(mitosis_peak=peak, mitosis_min_area_um2=1.0)
    found = Candidates(np.zeros((256, 2)), np.full(256, 99), np.arange(256))
    by_figure = _Evaluation(bundle, None, tmp_path, 7.5, None)._kept(found, 0.25)
    cut = object_thresholds(bundle, RunSettings()).of("mitoses", 0.25)
    assert by_figure.peak.tolist() == np.arange(256)[cut.keeps(found.area_px, found.peak)].tolist()
    field = _Field(None, np.zeros((0, 2)), np.zeros((9, 9), bool), 0.25, 1.0)
    assert _count(field, found, peak, 1.0, 7.5).fp == len(by_figure.peak)


def test_nuclei_that_a_run_would_drop_are_in_no_figure(tmp_path: Path) -> None:
    scores = np.zeros((3, 40, 40), np.uint8)
    scores[0, 2:22, 2:22], scores[0, 30:34, 30:34] = 255, 255
    judge = _Evaluation(bundle_with(nucleus_min_area_um2=2.0), None, tmp_path, 7.5, None)
    classes = judge._classes(scores, 0.25)
    assert classes[10, 10] == 1
    assert not classes[30:34, 30:34].any()
