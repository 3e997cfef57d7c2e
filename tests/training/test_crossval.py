"""Folds share nothing they must not, a cross-validation goes on where it was, and its figures are drawn."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minugan_training.data.index import Entry
from minugan_training.paper.charts import draw_charts
from minugan_training.paper.cross_validation import crossvalidate, folds_of
from minugan_training.paper.pictures import draw_pictures
from minugan_training.paper.tables import load_results, summary_rows
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment, Losses

from tests.training.test_data import experiment, pool
from wsi_minugan.errors import DataError, TrainingError


def entry(patient: int) -> Entry:
    return Entry(
        dataset="d", image=f"{patient}.png", width_px=9, height_px=9, mpp=0.25, patient=f"p{patient}", scanner="s",
        split="train", mitoses="known", nuclei="unknown",
    )  # fmt: skip


@given(st.lists(st.integers(0, 9), min_size=10, max_size=60), st.integers(2, 4), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_folds_by_patient_never_share_a_patient(patients: list[int], count: int, seed: int) -> None:
    entries = [entry(k) for k in range(10)]
    places = [(k, 0.0, 0.0) for k in patients]
    if len(set(patients)) < count:
        with pytest.raises(DataError):
            folds_of(places, entries, count, "patient", seed)
        return
    folds = folds_of(places, entries, count, "patient", seed)
    assert sorted(n for fold in folds for n in fold) == list(range(len(places)))
    owners = [{patients[n] for n in fold} for fold in folds]
    assert all(fold for fold in folds)
    assert sum(map(len, owners)) == len(set(patients))


def test_folds_by_patch_are_of_equal_size_and_follow_the_seed() -> None:
    places = [(0, float(k), 0.0) for k in range(418)]
    folds = folds_of(places, [entry(0)], 5, "patch", 0)
    assert sorted(map(len, folds)) == [83, 83, 84, 84, 84]
    assert folds == folds_of(places, [entry(0)], 5, "patch", 0)
    assert folds != folds_of(places, [entry(0)], 5, "patch", 1)


@pytest.mark.slow
def test_a_cross_validation_is_run_continued_and_drawn(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    content = experiment().model_dump() | {
        "ngf": 2,
        "steps": 3,
        "log_every": 1,
        "losses": {"supervised": 1.0},
    }
    content["sources"] = [s for s in content["sources"] if s["at"] == "mitoses"]
    small = type(experiment()).model_validate(content)
    out = tmp_path / "results"
    done = crossvalidate(small, p, out / small.name, 2, "patch")
    assert {s.fold for s in done.patches} == {0, 1}
    before = (out / small.name / "fold-0" / "scores.json").stat().st_mtime_ns
    assert crossvalidate(small, p, out / small.name, 2, "patch") == done
    assert (out / small.name / "fold-0" / "scores.json").stat().st_mtime_ns == before
    assert json.loads((out / small.name / "crossval.json").read_text())["by"] == "patch"
    results = load_results(out)
    row = summary_rows(results.crossval)[0]
    assert row["patches"] == len(done.patches)
    assert 0 <= row["f1"] <= 1
    drawn = draw_charts(results, out) + draw_pictures(results, p, out, 1)
    assert {d.name for d in drawn} == {"figure-3.png", "figure-4.png", "figure-9.png"}
    others = Pool(tmp_path, [p.entries[0].model_copy(update={"dataset": "another"})])
    with pytest.raises(DataError, match="the results were made with"):
        draw_pictures(results, others, out, 1)


def test_no_source_of_a_fold_by_patient_draws_from_a_patient_held_out(tmp_path: Path) -> None:
    first = pool(tmp_path).entries[0]
    p = Pool(tmp_path, [first, first.model_copy(update={"patient": "another"})])
    sources = experiment().sources
    assert p.of(sources[1]) == [0, 1]
    part = p.only([(1, 50.0, 50.0)], {first.patient})
    assert [part.of(s) for s in sources] == [[1], [1], [1]]
    assert part.mitoses_of(sources[0]) == [(1, 50.0, 50.0)]


def around_mitoses(**changes: object) -> Experiment:
    return experiment(
        sources=experiment().sources[:1], ngf=2, steps=1, losses=Losses(supervised=1.0), **changes
    )


@pytest.mark.parametrize("change", ["settings", "folds", "data"])
def test_scores_of_another_cross_validation_are_not_taken_for_its_own(change: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p, s, folds = pool(tmp_path), around_mitoses(), 2
    crossvalidate(s, p, tmp_path / "out", folds, "patch")
    first = (tmp_path / "out" / "crossval.json").read_bytes()
    if change == "settings":
        s = around_mitoses(learning_rate=0.5)
    elif change == "folds":
        p, folds = Pool(tmp_path, [p.entries[0], p.entries[0].model_copy(update={"patient": "p2"})]), 3
    else:
        p = Pool(tmp_path, [p.entries[0], p.entries[0].model_copy(update={"patient": "p2"})])
    with pytest.raises(TrainingError, match="another folder"):
        crossvalidate(s, p, tmp_path / "out", folds, "patch")
    assert (tmp_path / "out" / "crossval.json").read_bytes() == first


def test_folds_by_patch_refuse_sources_that_would_show_patches_held_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="by patient"):
        crossvalidate(experiment(), pool(tmp_path), tmp_path / "out", 2, "patch")


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="crossval"):
        load_results(tmp_path)
