"""Training lowers the loss, and a killed run ends bit for bit where an undisturbed one does."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from minugan_training.cli.main import app
from minugan_training.data.index import write_index
from minugan_training.data.labels import MITOSES
from minugan_training.export import SecondStageFiles, export_bundle
from minugan_training.fitting.checkpoint import load_checkpoint, save_checkpoint
from minugan_training.fitting.fit import fit
from minugan_training.fitting.metrics_log import draw_curves, read_metrics
from minugan_training.fitting.mining import mine
from minugan_training.fitting.state import build_network
from minugan_training.fitting.step import learning_rate
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment, load_experiment
from safetensors.torch import load_file, save_file

from tests.training.test_data import experiment, pool
from wsi_minugan.errors import SettingsError, TrainingError
from wsi_minugan.minugan.bundle import load_bundle
from wsi_minugan.minugan.card import StainNormalisation
from wsi_minugan.minugan.classifier import ResidualClassifier
from wsi_minugan.minugan.stain import StainStatistics

KINDS = {
    "supervised": {"losses": {"supervised": 1.0}, "norm": "batch"},
    "adversarial": {"losses": {"adversarial": 1.0, "discriminators": 2, "gamma": 1.0}, "norm": "instance"},
    "accumulating": {"losses": {"adversarial": 1.0, "supervised": 1.0}, "norm": "batch", "accumulate": 2},
    "u-net": {"losses": {"supervised": 1.0}, "network": "unet"},
}


def settings(kind: str, **more: object) -> Experiment:
    common = {
        "ngf": 2,
        "steps": 6,
        "learning_rate": 1e-3,
        "log_every": 1,
        "checkpoint_every": 2,
        "schedule": "constant",
    }
    return Experiment.model_validate(experiment().model_dump() | common | KINDS[kind] | more)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_killed_run_ends_with_the_same_weights(kind: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    s = settings(kind, ema=0.9, mining={"every_steps": 4})
    whole = fit(s, p, tmp_path / "a")
    fit(s, p, tmp_path / "b", until_step=3)
    resumed = fit(s, p, tmp_path / "b")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert [r["step"] for r in read_metrics(tmp_path / "b")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_short_fit_lowers_the_loss(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    s = settings("supervised", steps=40, ngf=4, learning_rate=3e-3)
    fit(s, pool(tmp_path), tmp_path / "a")
    rows = read_metrics(tmp_path / "a")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    draw_curves(tmp_path / "a")
    assert (tmp_path / "a" / "curves.png").stat().st_size > 5000


def test_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    p = pool(tmp_path)
    fit(settings("supervised"), p, tmp_path / "a", until_step=2)
    with pytest.raises(TrainingError, match="other settings"):
        fit(settings("supervised", seed=9), p, tmp_path / "a")


def test_a_run_on_other_data_is_refused_and_not_taken_for_this_ones(tmp_path: Path) -> None:
    p, s, folder = pool(tmp_path), settings("supervised"), tmp_path / "a"
    fit(s, p, folder)
    more = Pool(tmp_path, [p.entries[0], p.entries[0].model_copy(update={"patient": "another"})])
    with pytest.raises(TrainingError, match="other data"):
        fit(s, more, folder)
    judged = Pool(tmp_path, [p.entries[0], p.entries[0].model_copy(update={"split": "test"})])
    fit(s, judged, folder)  # what is not drawn from may change
    tensors, state = load_checkpoint(folder) or ({}, {})
    del state["data"]
    save_checkpoint(folder, tensors, state)
    fit(s, more, folder)  # of an earlier version nobody knows


def test_a_run_that_was_begun_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    p, s, folder = pool(tmp_path), settings("supervised"), tmp_path / "a"
    fit(s, p, folder, until_step=2)
    tensors, state = load_checkpoint(folder) or ({}, {})
    del state["experiment"]["clip_norm"], state["experiment"]["augmentation"]["jpeg"]
    save_checkpoint(folder, tensors, state)
    with pytest.raises(TrainingError, match="other settings"):
        fit(s, p, folder)  # its jpeg is not what it is by default
    state["experiment"]["augmentation"]["jpeg"] = s.augmentation.jpeg
    save_checkpoint(folder, tensors, state)
    fit(s, p, folder)
    assert read_metrics(folder)[-1]["step"] == s.steps


@pytest.mark.parametrize("kind", ["supervised", "u-net"])
def test_small_images_and_both_networks_are_mined(kind: str, tmp_path: Path) -> None:
    p, s = pool(tmp_path), settings(kind, mining={"every_steps": 4, "least_score": 0.0})
    places = mine(s, p, s.sources[1], build_network(s).state_dict(), 4)
    assert places
    labels = p.sample(0).labels
    assert all(labels[int(y), int(x), MITOSES] == 0 for _, x, y in places)


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_kept(tmp_path: Path) -> None:
    p = pool(tmp_path)
    fit(settings("supervised"), p, tmp_path / "a", until_step=2)
    before = (tmp_path / "a" / "checkpoint.safetensors").read_bytes()
    s = settings("supervised")
    broken = torch.nn.functional.binary_cross_entropy_with_logits
    torch.nn.functional.binary_cross_entropy_with_logits = lambda *a, **k: broken(*a, **k) * float("nan")
    try:
        with pytest.raises(TrainingError, match="not a number"):
            fit(s, p, tmp_path / "a")
    finally:
        torch.nn.functional.binary_cross_entropy_with_logits = broken
    assert (tmp_path / "a" / "checkpoint.safetensors").read_bytes() == before


def test_a_run_that_fails_leaves_its_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(tmp_path / "i.csv", pool(tmp_path).entries)
    (tmp_path / "e.yaml").write_text(settings("supervised", learning_rate=1e30, steps=20).model_dump_json())
    monkeypatch.chdir(tmp_path)
    call = ["fit", "e.yaml", "--index", "i.csv", "--root", ".", "-o", "run"]
    assert isinstance(CliRunner().invoke(app, call).exception, TrainingError)
    assert (tmp_path / "run" / "curves.png").is_file()


def test_schedules_end_low() -> None:
    for schedule in ("linear", "cosine"):
        s = settings("supervised", schedule=schedule, steps=100, warmup_steps=10)
        rates = [learning_rate(s, k) for k in range(100)]
        assert rates[0] < rates[20]
        assert rates[-1] < 0.05 * max(rates)


def test_an_exported_bundle_loads(tmp_path: Path) -> None:
    s = settings("supervised")
    fit(s, pool(tmp_path), tmp_path / "a", until_step=1)
    thresholds = {
        "mitosis": 0.5,
        "nucleus": 0.5,
        "boundary": 0.5,
        "mitosis_min_area_um2": 5,
        "nucleus_min_area_um2": 5,
    }
    card = {
        "name": "t",
        "version": "0",
        "training_data": ["drawn"],
        "licence": "none",
        "thresholds": thresholds,
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    (tmp_path / "scores.json").write_text(json.dumps({"F1": 0.5}))
    weights = tmp_path / "a" / "weights.safetensors"
    stain = StainStatistics(mean=(0.4, 0.2, 0.1), spread=(0.2, 0.1, 0.1))
    known = StainNormalisation(target=stain, low=stain, high=stain, slides=1)
    (tmp_path / "stain.json").write_text(known.model_dump_json())
    files = (tmp_path / "card.yaml", tmp_path / "scores.json", tmp_path / "bundle")
    export_bundle(s, [weights, weights], *files, stain=tmp_path / "stain.json")
    written = load_bundle(tmp_path / "bundle").card
    assert (written.scores, written.stain) == ({"F1": 0.5}, known)
    assert load_file(weights)

    # With a second stage, its errors by patient and how far two readers agree come onto the card.
    stage = {"width": 4, "least_score": 0.3, "full_score": 0.6}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card | {"candidate_stage": stage, "reader_f1": 0.74}))
    save_file(ResidualClassifier(4).state_dict(), tmp_path / "classifier.safetensors")
    row = {"patient": "a", "area_mm2": 1.0, "true_positives": 1, "false_positives": 2, "false_negatives": 3}
    measured = {
        "points": {"balanced": 0.5},
        "patients": {"balanced": [row | {"scanner": ""}]},
        "radius_um": 7.5,
    }
    (tmp_path / "calibration.json").write_text(json.dumps(measured))
    second = SecondStageFiles([tmp_path / "classifier.safetensors"], tmp_path / "calibration.json")
    export_bundle(s, [weights], *files[:2], tmp_path / "both", second)
    reliability = load_bundle(tmp_path / "both").card.reliability
    assert reliability is not None
    assert reliability.reader_f1 == 0.74
    assert reliability.operating_points["balanced"].patients[0].false_positives == 2


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "training" / "experiments").glob("*.yaml")),
    ids=lambda p: p.stem,
)
def test_every_experiment_file_is_valid(path: Path) -> None:
    assert load_experiment(path).name == path.stem


def test_two_views_that_would_not_overlap_are_refused(tmp_path: Path) -> None:
    """Their consistency would be the mean of no pixels."""
    experiment = load_experiment(Path(__file__).parents[2] / "training" / "experiments" / "ship-10.yaml")
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json") | {"patch_px": 64}))
    with pytest.raises(SettingsError, match="shift_px can be 31 at most"):
        load_experiment(tmp_path / "e.yaml")


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("name: x\nsurprise: 1\n")
    with pytest.raises(SettingsError, match="surprise"):
        load_experiment(tmp_path / "e.yaml")
