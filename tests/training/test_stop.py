"""Early stop: what a training is judged on, and that a run that has stopped stays so."""

from pathlib import Path

import minugan_training.evaluation.patches
import minugan_training.fitting.fit
import numpy as np
import pytest
import torch
from minugan_training.cli.main import app
from minugan_training.data.index import write_index
from minugan_training.fitting.fit import fit
from minugan_training.fitting.metrics_log import read_metrics
from minugan_training.fitting.state import build_network
from minugan_training.fitting.validation import validation_figure, validation_places
from minugan_training.paper.cross_validation import crossvalidate, patches_of
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment, Source

from tests.training.test_data import pool
from tests.training.test_fit import settings
from wsi_minugan.errors import DataError
from wsi_minugan.segmentation.classes import MITOSIS


def stopping(**more: object) -> Experiment:
    """Return an experiment of patches around mitoses alone that never gets better, and so stops early."""
    at_mitoses = Source(datasets=("rgb",), at="mitoses", per_batch=2)
    stop = {"every_steps": 1, "patience": 2, "patches": 2}
    common = {"sources": (at_mitoses,), "validation": stop, "learning_rate": 1e-9, "steps": 40}
    return settings("supervised", **(common | more))


def with_val(p: Pool) -> Pool:
    """Return a pool with an image of the split "val" too."""
    return Pool(p.root, [*p.entries, p.entries[0].model_copy(update={"split": "val"})])


def test_a_run_that_stopped_early_is_not_trained_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = with_val(pool(tmp_path))
    weights = fit(stopping(), p, tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert len(rows) < 40
    again = fit(stopping(), p, tmp_path / "run")
    assert all(torch.equal(v, again[k]) for k, v in weights.items())
    assert read_metrics(tmp_path / "run") == rows


@pytest.mark.slow
def test_a_fold_that_was_killed_before_its_scores_is_only_scored(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = with_val(pool(tmp_path))
    done = crossvalidate(stopping(), p, tmp_path / "out", 2, "patch")
    fold = tmp_path / "out" / "fold-0"
    rows = read_metrics(fold)
    assert len(rows) < 40
    assert all("validation" in r for r in rows)
    (fold / "scores.json").unlink()
    assert crossvalidate(stopping(), p, tmp_path / "out", 2, "patch") == done
    assert read_metrics(fold) == rows


def test_a_fold_is_judged_on_images_that_no_fold_draws_from(tmp_path: Path) -> None:
    p, s = with_val(pool(tmp_path)), stopping()
    places = patches_of(p, s, s.sources)
    assert {k for k, _, _ in places} == {0}
    judges = validation_places(s, p.only(places[:1]))
    assert len(judges) == 2
    assert {k for k, _, _ in judges} == {1}


def test_a_validation_is_not_won_by_painting_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, s = with_val(pool(tmp_path)), stopping(patch_px=256)
    places = validation_places(s, p)
    assert len(places) == 2
    middle = {(x, y) for _, x, y in p.mitoses_on([1])}
    assert not middle & {(x, y) for _, x, y in places}
    painted = np.full((256, 256), MITOSIS, np.uint8)
    monkeypatch.setattr(minugan_training.evaluation.patches, "classes_of", lambda *_: painted)
    network = build_network(s)
    assert s.validation is not None
    figure = validation_figure(s, s.validation, network, network.state_dict(), p, places)
    assert figure < 0.5


@pytest.mark.parametrize("splits", [("train", ""), ("train", "val")], ids=["none", "all of them trained on"])
def test_a_validation_without_images_of_its_own_fails_before_the_first_step(
    splits: tuple[str, ...], tmp_path: Path
) -> None:
    p = pool(tmp_path) if "" in splits else with_val(pool(tmp_path))
    s = stopping(sources=(Source(datasets=("rgb",), splits=splits, at="mitoses", per_batch=1),))
    with pytest.raises(DataError, match="split 'val'"):
        crossvalidate(s, p, tmp_path / "out", 2, "patch")
    assert not list((tmp_path / "out").rglob("*.jsonl"))


def test_a_dice_is_not_validated_on_mitoses_that_nobody_outlined(tmp_path: Path) -> None:
    p = with_val(pool(tmp_path))
    centres = ";".join(f"{x:g} {y:g}" for _, x, y in p.mitoses_on([1]))
    points = {"mitoses_kind": "points", "mitoses_truth": centres}
    p = Pool(p.root, [p.entries[0], p.entries[1].model_copy(update=points)])
    stop = {"every_steps": 1, "patches": 2}
    assert validation_places(stopping(validation=stop | {"figure": "f1"}), p)
    with pytest.raises(DataError, match="outlined ones"):
        validation_places(stopping(validation=stop | {"figure": "dice"}), p)


def test_crossval_hands_its_device_to_every_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(tmp_path / "i.csv", pool(tmp_path).entries)
    (tmp_path / "e.yaml").write_text(stopping(validation=None, steps=1).model_dump_json())
    asked = []
    monkeypatch.setattr(minugan_training.fitting.fit, "local_device", lambda d: asked.append(d) or "cpu")
    call = ["crossval", "e.yaml", "--index", "i.csv", "--root", ".", "-o", "out", "--folds", "2"]
    monkeypatch.chdir(tmp_path)
    app.main([*call, "--device", "auto"], standalone_mode=False)
    assert asked == ["auto", "auto"]
    assert (tmp_path / "out" / "t" / "crossval.json").is_file()


def test_images_that_are_in_no_split_are_trained_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    loose = Pool(tmp_path, [p.entries[0].model_copy(update={"split": ""})])
    s = stopping(validation=None, steps=1)
    done = crossvalidate(s, loose, tmp_path / "out", 2, "patch", device="auto")
    assert len(done.patches) == len(patches_of(p, s, s.sources))
    with pytest.raises(DataError, match="'test'"):
        fit(
            stopping(sources=(Source(datasets=("rgb",), splits=("test",), at="mitoses", per_batch=1),)),
            p,
            tmp_path / "a",
        )
