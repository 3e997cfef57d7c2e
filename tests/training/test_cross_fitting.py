"""Networks judge the candidates of patients that they did not see, and another network learns from that, too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from minugan_training.classification.candidates import Candidates, chosen, save_candidates
from minugan_training.classification.cross_fitting import (
    JUDGED_FILE,
    Fold,
    judge_held_out,
    prepare_cross_fitting,
    with_soft_labels,
)
from minugan_training.classification.judging import averaged, classifier_inputs, logits_of
from minugan_training.classification.train import ClassifierExperiment, train_classifier
from minugan_training.cli.main import app
from minugan_training.packs.candidates import pack_candidates, packed_candidates
from minugan_training.packs.classify import main as classify_pack
from safetensors.torch import load_file

from tests.training.test_classification import candidates
from wsi_minugan.errors import DataError, TrainingError

ONE = ClassifierExperiment(name="t", width=4, batch=8, steps=2, log_every=2)
HALF = ONE.model_copy(update={"soft_labels": 0.5})


def of_patients(patients: list[str], datasets: list[str]) -> Candidates:
    """Return a candidate of each patient."""
    return replace(candidates(len(patients)), patient=np.array(patients), dataset=np.array(datasets))


def judge_both(found: Candidates, folder: Path) -> list[Path]:
    """Train without each half of the patients; returns the runs' folders."""
    for k in (1, 2):
        train, held_out = prepare_cross_fitting(ONE, found, Fold(k, 2))
        weights = train_classifier(ONE, train, None, folder / f"{k}")
        judge_held_out(ONE, weights, found, held_out, folder / f"{k}")
    return [folder / "1", folder / "2"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "y"])), min_size=1, max_size=30),
    st.integers(2, 5),
)
def test_parts_divide_the_patients(rows: list[tuple[str, str]], count: int) -> None:
    found = of_patients(*map(list, zip(*rows, strict=True)))
    held = np.array([Fold(k + 1, count).holds(found) for k in range(count)])
    assert (held.sum(0) == 1).all()
    for patient in set(found.patient):
        assert len(np.unique(held[:, found.patient == patient], axis=1).T) == 1


def test_each_part_has_patients_of_each_data_set() -> None:
    found = of_patients(list("abcdefgh"), ["x"] * 4 + ["y"] * 4)
    for k in (1, 2):
        held = Fold(k, 2).holds(found)
        assert (held[:4].sum(), held[4:].sum()) == (2, 2)


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "1/1", "a/b", "1/2/3", "-1/2"])
def test_a_part_that_is_none_is_told(text: str) -> None:
    with pytest.raises(TrainingError, match="2/4"):
        Fold.parse(text)


def test_a_network_judges_only_patients_that_it_did_not_see(tmp_path: Path) -> None:
    found = candidates()
    (first, _) = judge_both(found, tmp_path)
    with np.load(first / JUDGED_FILE) as judged:
        held_out, logits = judged["held_out"], judged["logits"]
    assert set(found.patient[held_out]) == {"a"}
    # The run is the one that never heard of these patients, and its judgements are those of the four views in use.
    weights = train_classifier(ONE, chosen(found, found.patient != "a"), None, tmp_path / "own")
    network = averaged(ONE.width, weights)
    inputs = classifier_inputs(found.crops[held_out])
    assert np.array_equal(logits, logits_of(network, inputs, mirrored=True))
    turned = [inputs, inputs[:, ::-1], inputs[:, :, ::-1], inputs[:, ::-1, ::-1]]
    assert np.allclose(logits, np.mean([logits_of(network, t) for t in turned], axis=0), atol=1e-5)


def test_labels_are_partly_the_mean_judgement(tmp_path: Path) -> None:
    found = candidates(4)
    for name, held_out, logits in (
        ("1", [1, 1, 0, 0], [0.0, 2.0]),
        ("2", [0, 0, 1, 1], [-50.0, 50.0]),
        ("3", [1, 0, 0, 0], [4.0]),
    ):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / JUDGED_FILE, held_out=np.array(held_out, bool), logits=np.array(logits))
    folders = [tmp_path / name for name in "123"]
    soft = with_soft_labels(found, folders, 0.25).target
    said = np.array([1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-2.0)), 0.0, 1.0])
    assert np.allclose(soft, 0.75 * found.target + 0.25 * said)
    with pytest.raises(DataError, match="Of 2 candidates there is no judgement"):
        with_soft_labels(found, folders[:1], 0.25)


def test_judgements_of_other_candidates_or_damaged_ones_are_told(tmp_path: Path) -> None:
    folders = judge_both(candidates(), tmp_path)
    with pytest.raises(DataError, match="other candidates"):
        with_soft_labels(candidates(16), folders, 0.5)
    file = folders[0] / JUDGED_FILE
    whole = file.read_bytes()
    for damaged in (b"", whole[:-40], b"no archive"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            with_soft_labels(candidates(), folders, 0.5)
    np.savez(file, held_out=np.array([object()]), logits=np.zeros(1))
    with pytest.raises(DataError, match="cannot be read"):
        with_soft_labels(candidates(), folders, 0.5)


def test_judgements_and_their_share_come_together_or_not_at_all(tmp_path: Path) -> None:
    folders = judge_both(candidates(), tmp_path)
    for experiment, judged in ((ONE, folders), (HALF, [])):
        with pytest.raises(TrainingError, match="soft_labels"):
            prepare_cross_fitting(experiment, candidates(), judged=judged)
    with pytest.raises(DataError, match="too few patients"):
        prepare_cross_fitting(ONE, candidates(), Fold(3, 3))


@pytest.mark.slow
def test_the_commands_judge_all_parts_and_learn_from_that(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = candidates()
    for split in ("train", "val"):
        save_candidates(tmp_path / "found" / f"{split}.npz", found)
    for e in (ONE, HALF):
        (tmp_path / f"{e.soft_labels:g}.yaml").write_text(yaml.safe_dump(e.model_dump(mode="json")))
    common = ["--candidates", str(tmp_path / "found")]

    def classify(name: str, *arguments: str) -> None:
        done = CliRunner().invoke(
            app, ["classify", str(tmp_path / name), *common, *arguments], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output

    for k in ("1", "2"):
        classify("0.yaml", "--without-part", f"{k}/2", "-o", str(tmp_path / k))
    runs = [str(tmp_path / k) for k in "12"]
    classify("0.5.yaml", "--judged", runs[0], "--judged", runs[1], "-o", str(tmp_path / "student"))
    soft = with_soft_labels(found, [Path(r) for r in runs], 0.5)
    own = train_classifier(HALF, soft, found, tmp_path / "own")
    plain = train_classifier(ONE, found, found, tmp_path / "plain")
    learnt = (tmp_path / "student" / "weights.safetensors").read_bytes()
    assert learnt == (tmp_path / "own" / "weights.safetensors").read_bytes()
    assert any(not torch.equal(v, plain[k]) for k, v in own.items())


@pytest.mark.slow
def test_candidates_in_a_pack_are_judged_and_learnt_from_alike(tmp_path: Path) -> None:
    pack_candidates(candidates(), tmp_path / "a.candidates", 3_000_000)
    for e in (ONE, HALF):
        (tmp_path / f"{e.soft_labels:g}.yaml").write_text(yaml.safe_dump(e.model_dump(mode="json")))
    common = ["--candidates", str(tmp_path / "a.candidates"), "--device", "cpu", "--out"]
    runs = [str(tmp_path / k) for k in "12"]
    for k, run in enumerate(runs):
        part = ["--without-part", f"{k + 1}/2"]
        assert classify_pack([str(tmp_path / "0.yaml"), *common, run, *part]) == 0
    student = [str(tmp_path / "0.5.yaml"), *common, str(tmp_path / "student"), "--judged"]
    assert classify_pack([*student, runs[0]]) == DataError.exit_status
    assert classify_pack([*student, *runs]) == 0
    soft = with_soft_labels(packed_candidates(tmp_path / "a.candidates"), [Path(r) for r in runs], 0.5)
    own = train_classifier(HALF, soft, None, tmp_path / "own")
    learnt = load_file(tmp_path / "student" / "weights.safetensors")
    assert all(torch.equal(v, learnt[k]) for k, v in own.items())
