"""Training of the second stage: candidates, batches of crops, and a run that goes on where it stopped."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from minugan_training.classification.batches import crop_batches
from minugan_training.classification.candidates import (
    CROP_PX,
    DARK,
    LOOK_ALIKE,
    MITOSIS,
    PEAK,
    Candidates,
    find_candidates,
    joined,
    load_candidates,
    save_candidates,
    without_scanners,
)
from minugan_training.classification.crops import SHARES, CropSampler, changed_crop
from minugan_training.classification.pretrained import from_photographs
from minugan_training.classification.train import ClassifierExperiment, train_classifier
from minugan_training.data.index import Entry
from minugan_training.fitting.checkpoint import load_checkpoint
from torch import nn

from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.minugan.classifier import EfficientClassifier
from wsi_minugan.minugan.generator import Generator


def candidates(n: int = 48, seed: int = 0) -> Candidates:
    """Return candidates of two patients, of all kinds."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    return Candidates(
        rng.integers(60, 255, (n, CROP_PX, CROP_PX, 3)).astype(np.uint8),
        np.where(np.arange(n) < n // 4, "a", "b"),
        np.full(n, "Aperio"),
        np.full(n, "mitos14"),
        np.full((n, 2), 64.0),
        np.where(kind == MITOSIS, 1.0, 0.1 * (kind == LOOK_ALIKE)),
        kind.astype(np.uint8),
        np.full(n, 0.5),
    )


def field(folder: Path) -> Entry:
    """Write a field with one labelled mitosis, one look-alike and other dark nuclei."""
    image = np.full((512, 512, 3), (230, 180, 210), np.uint8)
    for x, y in ((100, 100), (200, 300), (400, 100), (400, 400)):
        cv2.circle(image, (x, y), 9, (60, 30, 90), -1)
    cv2.imwrite(str(folder / "field.png"), image[..., ::-1])
    return Entry(
        dataset="mitos14", image="field.png", width_px=512, height_px=512, mpp=0.25, patient="p",
        mitoses="known", mitoses_kind="points", mitoses_truth="100 100", mitoses_votes="0.8",
        look_alikes="200 300", nuclei="unknown",
    )  # fmt: skip


def test_candidates_are_mitoses_by_their_votes_look_alikes_and_dark_nuclei(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Generator(4, "batch")
    found = find_candidates(tmp_path, [field(tmp_path)], network, 1.1, 150.0)
    assert found.kind.tolist() == [MITOSIS, LOOK_ALIKE, DARK, DARK]
    assert found.target[0] == pytest.approx(0.55 + 0.45 * 0.8)
    assert found.target[1] < 0.2
    assert sorted(found.xy_px[2:].round().tolist()) == [[400, 100], [400, 400]]
    assert (found.crops[:, CROP_PX // 2, CROP_PX // 2] == (60, 30, 90)).all()


class Spots(nn.Module):
    """A first stage that takes what is dark for a mitosis, 5 px beside where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((), -10.0))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        dark = torch.roll((x.mean(1, keepdim=True) < -0.2).float(), 5, 3)
        return 20 * torch.cat([dark, dark, dark], 1) + self.bias


def test_what_the_first_stage_proposes_lies_where_it_does_so_in_use(tmp_path: Path) -> None:
    found = find_candidates(tmp_path, [field(tmp_path)], Spots(), 0.3, 0.0)
    assert found.kind.tolist()[:4] == [MITOSIS, LOOK_ALIKE, PEAK, PEAK]
    assert found.xy_px[:4].tolist() == [
        [pytest.approx(x + 5.5), pytest.approx(y + 0.5)]
        for x, y in ((100, 100), (200, 300), (400, 100), (400, 400))
    ]


def test_candidates_survive_a_file_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    save_candidates(tmp_path / "c" / "train.npz", candidates())
    back = load_candidates(tmp_path / "c" / "train.npz")
    assert np.array_equal(back.crops, candidates().crops)
    assert back.patient.tolist() == candidates().patient.tolist()
    (tmp_path / "c" / "train.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="minugan-train candidates"):
        load_candidates(tmp_path / "c" / "train.npz")


def test_kinds_have_their_shares_and_a_patient_with_fewer_candidates_is_drawn_more_often_each() -> None:
    found = candidates(400)
    weights = CropSampler.of(found, 0).weights()
    for kind, share in SHARES.items():
        assert weights[found.kind == kind].sum() == pytest.approx(share)
    peaks = found.kind == PEAK
    few, many = weights[peaks & (found.patient == "a")], weights[peaks & (found.patient == "b")]
    assert few[0] > many[0]
    assert many.sum() > few.sum()


def test_no_data_set_has_more_of_the_mitoses_than_of_the_other_candidates() -> None:
    # Crops with a mitosis in each, and few other candidates, beside fields that have many.
    crops = replace(candidates(200), kind=np.where(np.arange(200) < 180, MITOSIS, DARK).astype(np.uint8))
    crops = replace(crops, dataset=np.full(200, "amibr"), patient=(np.arange(200) // 10).astype(str))
    found = joined([candidates(400), crops])
    weights = CropSampler.of(found, 0).weights()
    mitosis = found.kind == MITOSIS
    assert weights[mitosis].sum() == pytest.approx(SHARES[MITOSIS])
    for name in ("amibr", "mitos14"):
        of = found.dataset == name
        assert weights[mitosis & of].sum() / weights[of].sum() == pytest.approx(SHARES[MITOSIS])


def test_hard_negatives_are_drawn_more_often_and_mitoses_are_not_weighed() -> None:
    found = candidates(400)
    difficulty = np.zeros(400)
    hard = int(np.flatnonzero(found.kind == PEAK)[0])
    difficulty[hard] = 1.0
    weights = CropSampler.of(found, 0).weights(difficulty)
    same = (found.kind == PEAK) & (found.patient == found.patient[hard])
    assert weights[hard] > 5 * np.median(weights[same])
    mitoses = weights[(found.kind == MITOSIS) & (found.patient == "b")]
    assert np.ptp(mitoses) == pytest.approx(0)


def test_a_changed_crop_keeps_its_candidate_in_the_middle() -> None:
    crop = np.full((CROP_PX, CROP_PX, 3), 230, np.uint8)
    cv2.circle(crop, (CROP_PX // 2, CROP_PX // 2), 12, (40, 20, 60), -1)
    for seed in range(40):
        out = changed_crop(crop, np.random.default_rng(seed))
        assert out.shape == (64, 64, 3)
        assert out[24:40, 24:40].mean() < 200


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = ClassifierExperiment(name="t", width=4, batch=8, steps=6, log_every=3)
    there = train_classifier(whole, candidates(), candidates(16, 1), tmp_path / "whole")
    log_at_three = whole.model_copy(update={"log_every": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minugan_training.classification.train._precision", _stop_at(3))
        with pytest.raises(KeyboardInterrupt):
            train_classifier(log_at_three, candidates(), candidates(16, 1), tmp_path / "stopped")
    train_classifier(whole, candidates(), candidates(16, 1), tmp_path / "stopped")
    again = train_classifier(whole, candidates(), candidates(16, 1), tmp_path / "stopped")
    assert all(torch.equal(there[k], again[k]) for k in there)


def _stop_at(step: int):
    def stop(_experiment, state, *_rest) -> None:
        if state.step > step:
            raise KeyboardInterrupt

    return stop


def test_batches_of_other_processes_are_the_same_while_nothing_is_weighed_anew() -> None:
    sampler = CropSampler.of(candidates(), 3)
    weights = sampler.weights()
    own, other = (list(crop_batches(sampler, range(4, 8), 6, lambda: weights, workers)) for workers in (0, 2))
    assert len(own) == len(other) == 4
    for a, b in zip(own, other, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not np.array_equal(own[0].images, own[1].images)


def test_stains_vary_as_much_as_an_experiment_says() -> None:
    found = candidates()
    found = replace(found, crops=np.full_like(found.crops, 150))
    chosen = np.arange(len(found.kind))

    def spread(stain: float) -> float:
        images = [CropSampler.of(found, 3, stain).made(step, chosen)[0] for step in range(3)]
        return float(np.std([i.mean(axis=(2, 3)) for i in images], axis=(0, 1)).mean())

    assert spread(0.0) < spread(1.0) < 0.8 * spread(1.6)


def test_a_run_ends_by_the_clock_and_its_rate_falls_with_it(tmp_path: Path) -> None:
    long = ClassifierExperiment(
        name="t", width=4, batch=4, steps=100_000, log_every=100_000, precision="bf16"
    )
    first = train_classifier(long, candidates(), None, tmp_path, minutes=0.02, workers=1)
    ended = load_checkpoint(tmp_path)
    assert ended is not None
    assert 1 <= ended[1]["step"] < 100_000
    assert ended[1]["seconds"] >= 1.2
    second = train_classifier(long, candidates(), None, tmp_path, minutes=0.001)
    assert any(not torch.equal(first[k], second[k]) for k in first)


@pytest.mark.gpu
def test_a_classifier_learns_on_a_gpu_and_comes_home(tmp_path: Path) -> None:
    one = ClassifierExperiment(name="t", width=4, batch=8, steps=4, log_every=2, precision="bf16")
    weights = train_classifier(one, candidates(), candidates(16, 1), tmp_path, device="cuda", workers=1)
    assert all(v.device.type == "cpu" and v.isfinite().all() for v in weights.values())


def test_candidates_of_two_splits_are_learnt_from_as_one(tmp_path: Path) -> None:
    one = ClassifierExperiment(name="t", width=4, batch=8, steps=2, log_every=1)
    both = joined([candidates(), candidates(16, 1)])
    assert len(both.target) == 64
    assert np.array_equal(both.crops[48:], candidates(16, 1).crops)
    assert train_classifier(one, both, None, tmp_path)


def test_a_scanner_may_be_left_out_and_a_misspelt_one_is_told() -> None:
    both = joined([candidates(), replace(candidates(16, 1), scanner=np.full(16, "Leica"))])
    assert set(without_scanners(both, ["Leica"]).scanner) == {"Aperio"}
    with pytest.raises(DataError, match="There are: Aperio, Leica"):
        without_scanners(both, ["Lieca"])


def test_a_run_may_begin_with_the_weights_of_another_of_the_same_width(tmp_path: Path) -> None:
    first = ClassifierExperiment(name="t", width=4, batch=8, steps=4, log_every=2)
    learnt = train_classifier(first, candidates(), None, tmp_path / "first")
    one = first.model_copy(update={"steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0})
    kept = train_classifier(one, candidates(), None, tmp_path / "second", learnt)
    assert torch.allclose(kept["head.weight"], learnt["head.weight"], atol=1e-6)
    with pytest.raises(TrainingError, match="another network"):
        train_classifier(one.model_copy(update={"width": 8}), candidates(), None, tmp_path / "third", learnt)


def write_published_weights(path: Path, network: EfficientClassifier) -> Path:
    """Write a network's features as EfficientNet-Lite0's weights are published: other names, and a last layer."""
    kept = {f"_{k}": v for k, v in network.features.state_dict().items()}
    torch.save(
        OrderedDict(kept | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}), path
    )
    return path


def test_an_efficientnet_begins_with_the_features_of_photographs_and_learns(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = EfficientClassifier()
    first = from_photographs(write_published_weights(tmp_path / "lite0.pth", network))
    assert all(torch.equal(first[f"features.{k}"], v) for k, v in network.features.state_dict().items())
    assert not first["head.weight"].any()
    one = ClassifierExperiment(name="t", network="efficientnet-lite0", batch=4, steps=2, log_every=2)
    learnt = train_classifier(one, candidates(8), None, tmp_path / "run", first)
    assert learnt.keys() == first.keys()
    assert learnt["head.weight"].any()


class Harmful:
    """What runs a function of its own where it is read carelessly."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("harmed"),))


def test_published_weights_that_are_others_or_run_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(OrderedDict({"_conv_stem.weight": torch.zeros(3)}), tmp_path / "other.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"a": Harmful()}, tmp_path / "harmful.pth")
    for name in ("other.pth", "list.pth"):
        with pytest.raises(TrainingError, match="does not hold the weights of EfficientNet-Lite0"):
            from_photographs(tmp_path / name)
    with pytest.raises(TrainingError, match="cannot be read"):
        from_photographs(tmp_path / "harmful.pth")
    assert not (tmp_path / "harmed").exists()


def test_a_folder_takes_one_runs_settings_only(tmp_path: Path) -> None:
    one = ClassifierExperiment(name="t", width=4, batch=8, steps=2, log_every=1)
    train_classifier(one, candidates(), candidates(16, 1), tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        train_classifier(one.model_copy(update={"seed": 1}), candidates(), candidates(16, 1), tmp_path)
