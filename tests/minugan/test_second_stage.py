"""The second stage: candidates, the classifier's view of them, and probabilities in place of scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.minugan.test_network import card, trained_a_little, without_ink
from wsi_minugan.errors import ModelError
from wsi_minugan.minugan.bundle import CLASSIFIER, Bundle, load_bundle, save_bundle
from wsi_minugan.minugan.card import CandidateStage
from wsi_minugan.minugan.classifier import (
    CandidateClassifier,
    EfficientClassifier,
    ResidualClassifier,
    folded,
)
from wsi_minugan.minugan.networks.ensemble import ClassifierEnsemble, mirrored_views
from wsi_minugan.minugan.networks.own import OwnNetworks
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.minugan.second_stage import SecondStage, crop_around, find_candidates
from wsi_minugan.minugan.stain import optical_density

CPU = torch.device("cpu")


def spots(*centres: tuple[int, int], radius_px: int = 8) -> np.ndarray:
    """Return mitosis scores with full discs at x, y."""
    y, x = np.mgrid[:256, :256]
    out = np.zeros((256, 256), np.uint8)
    for cx, cy in centres:
        out[(x - cx) ** 2 + (y - cy) ** 2 <= radius_px**2] = 230
    return out


def two_classifiers() -> list[CandidateClassifier]:
    torch.manual_seed(1)
    return [ResidualClassifier(8), ResidualClassifier(8)]


def stage(bias: float = 0.0, full_score: float | None = 0.6) -> SecondStage:
    settings = CandidateStage(
        width=8, members=2, least_score=0.3, full_score=full_score, bias=bias, weights_sha256="0" * 64
    )
    return SecondStage(settings, ClassifierEnsemble(two_classifiers(), None, CPU).logits)


def with_second_stage(folder: Path) -> Bundle:
    torch.manual_seed(2)
    members = {f"{n}.{k}": v for n in range(2) for k, v in ResidualClassifier(8).state_dict().items()}
    fields = card() | {
        "candidate_stage": {"width": 8, "members": 2, "least_score": 0.02, "full_score": 0.05},
        "operating_points": {"balanced": 0.5, "sensitive": 0.3},
    }
    return save_bundle(folder, trained_a_little("batch").state_dict(), fields, classifiers=members)


def test_members_of_a_second_stage_can_have_different_architectures(tmp_path: Path) -> None:
    torch.manual_seed(2)
    networks = [ResidualClassifier(8), EfficientClassifier()]
    torch.nn.init.constant_(networks[1].head.bias, 3.0)
    members = {f"{n}.{k}": v for n, network in enumerate(networks) for k, v in network.state_dict().items()}
    stage = {"width": 8, "members": 2, "kinds": ["residual", "efficientnet-lite0"], "least_score": 0.02}
    weights = trained_a_little("batch").state_dict()
    bundle = save_bundle(tmp_path / "b", weights, card() | {"candidate_stage": stage}, classifiers=members)
    crop = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    together = OwnNetworks(bundle, "cpu", "fp32", 1, threads=1, compiled=False).logits(crop)
    alone = [ClassifierEnsemble([n], None, CPU).logits(crop) for n in networks]
    # The bundle's kernels are stored in half precision.
    assert together == pytest.approx(np.mean(alone, axis=0), abs=0.05)
    with pytest.raises(ValidationError, match="1 architectures of 2 members"):
        CandidateStage(**bundle.card.candidate_stage.model_dump() | {"kinds": ["residual"]})


@pytest.mark.parametrize("network", [ResidualClassifier(8), EfficientClassifier()])
def test_a_folded_classifier_gives_the_same_logits(network: CandidateClassifier) -> None:
    torch.manual_seed(3)
    crops = torch.rand(4, 3, 64, 64) * 2 - 1
    network.train()
    network(crops)  # so that the norms have statistics of something
    network.eval()
    quick = folded(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in quick.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    with torch.inference_mode():
        assert torch.allclose(quick(crops), network(crops), atol=1e-4)


@pytest.mark.parametrize("network", [ResidualClassifier(8), EfficientClassifier()])
def test_in_bf16_a_classifier_rounds_between_its_first_and_its_last_layer(
    network: CandidateClassifier,
) -> None:
    torch.manual_seed(4)
    crops = torch.rand(4, 3, 64, 64) * 2 - 1
    network.eval()
    quick = folded(network, torch.bfloat16)
    kinds = [p.dtype for p in quick.parameters() if p.ndim > 1]
    assert (kinds[0], kinds[-1]) == (torch.float32, torch.float32)
    assert set(kinds[1:-1]) == {torch.bfloat16}
    with torch.inference_mode():
        assert torch.allclose(quick(crops), network(crops), atol=0.02)


def test_what_some_members_refuse_the_next_do_not_see() -> None:
    crops = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3)).astype(np.uint8)
    members = [*two_classifiers(), *two_classifiers()[:1]]

    def logits(of: list[CandidateClassifier], refuse_below: float | None) -> np.ndarray:
        return ClassifierEnsemble(of, refuse_below, CPU).logits(crops)

    first, second, third = (logits([m], None) for m in members)
    all_three = logits(members, None)
    assert all_three == pytest.approx((first + second + third) / 3, abs=1e-5)
    for least in [*np.sort(first) + 1e-4, *np.sort((first + second) / 2) + 1e-4]:
        after_two = np.where((first + second) / 2 >= least, all_three, (first + second) / 2)
        expected = np.where(first >= least, after_two, first)
        assert logits(members, least) == pytest.approx(expected, abs=1e-5)


def test_each_view_of_a_crop_can_have_a_stain_of_its_own() -> None:
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8))
    densities = (0.65, 1.0, 1.5, 0.85)
    plain, stained = mirrored_views(crops), mirrored_views(crops, densities)
    for before, after, factor in zip(plain, stained, densities, strict=True):
        rgb = [127.5 * (v.numpy() + 1) for v in (before, after)]
        density = [optical_density(v) for v in rgb]
        assert density[1] == pytest.approx(factor * density[0], abs=1e-3)
    assert torch.allclose(mirrored_views(crops, (1.0,) * 4)[3], plain[3], atol=1e-6)


def test_the_mean_over_stained_views_counts_and_companions_do_not() -> None:
    crops = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3)).astype(np.uint8)
    network, densities = two_classifiers()[0], (0.65, 1.0, 1.5, 0.85)
    together = ClassifierEnsemble([network], None, CPU, densities=densities).logits(crops)
    with torch.inference_mode():
        views = [network.eval()(v) for v in mirrored_views(torch.from_numpy(crops), densities)]
    assert together == pytest.approx(torch.stack(views).mean(0).numpy(), abs=1e-4)
    alone = [ClassifierEnsemble([network], None, CPU, densities=densities).logits(c[None]) for c in crops]
    assert np.array_equal(together, np.concatenate(alone))
    assert not np.array_equal(together, ClassifierEnsemble([network], None, CPU).logits(crops))


def test_a_cards_densities_are_those_of_its_views(tmp_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    bundle = with_second_stage(tmp_path / "b")
    logits = []
    for densities in (None, (0.5, 1.0, 2.0, 1.0)):
        stage = bundle.card.candidate_stage.model_copy(update={"view_densities": densities})
        changed = replace(bundle, card=bundle.card.model_copy(update={"candidate_stage": stage}))
        logits.append(OwnNetworks(changed, "cpu", "fp32", 1, threads=1, compiled=False).logits(crops))
    assert not np.array_equal(*logits)
    with pytest.raises(ValidationError):
        CandidateStage(**bundle.card.candidate_stage.model_dump() | {"view_densities": (1.0, 1.0, 0.0, 1.0)})


def test_each_spot_is_a_candidate_but_specks_and_what_lies_in_the_margin_are_none() -> None:
    scores = spots((60, 80), (180, 200)) | spots((3, 100)) | spots((128, 128), radius_px=2)
    found = find_candidates(scores, 0.3)
    assert sorted((round(c.centre_px[0]), round(c.centre_px[1])) for c in found) == [(60, 80), (180, 200)]
    assert all(c.peak == pytest.approx(230 / 255, abs=0.01) for c in found)


def test_what_is_faint_beside_a_candidate_moves_neither_its_centre_nor_its_outline() -> None:
    clear = spots((60, 80))
    beside = np.where(spots((70, 80)) > 0, 90, 0).astype(np.uint8)
    (alone,) = find_candidates(clear, 0.3, share_of_peak=0.5)
    (found,) = find_candidates(np.maximum(clear, beside), 0.3, share_of_peak=0.5)
    (whole,) = find_candidates(np.maximum(clear, beside), 0.3)
    assert found.centre_px == pytest.approx(alone.centre_px, abs=1)
    assert whole.centre_px[0] > alone.centre_px[0] + 2
    assert len(found.smooth) == pytest.approx(len(alone.smooth), rel=0.1)
    assert len(found.smooth) < 0.8 * len(whole.smooth)


def test_a_candidates_outline_does_not_depend_on_its_probability() -> None:
    patch = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    areas = []
    for bias in (-1.0, 3.0):
        scores = np.zeros((1, 3, 256, 256), np.uint8)
        scores[0, 1] = spots((60, 80))
        stage(bias, full_score=None).judge([patch], scores)
        assert len(np.unique(scores[0, 1])) == 2
        areas.append(np.count_nonzero(scores[0, 1]))
    assert areas[0] == areas[1] == pytest.approx(np.pi * 8**2, rel=0.15)


def test_the_classifier_sees_twenty_micrometres_around_a_place_with_its_centre_in_the_middle() -> None:
    y, x = np.mgrid[:200, :200]
    image = np.full((200, 200, 3), 255, np.uint8)
    image[(x + 0.5 - 90) ** 2 + (y + 0.5 - 70) ** 2 <= 20**2] = 0
    crop = crop_around(image, (90.0, 70.0))
    assert crop.shape == (64, 64, 3)
    dark = np.argwhere(crop[..., 0] < 128)
    assert dark.mean(axis=0) == pytest.approx([31.5, 31.5], abs=0.1)
    assert len(dark) == pytest.approx(np.pi * 16**2, rel=0.05)


def test_a_candidate_has_one_probability_and_what_is_no_mitosis_stays_a_nucleus() -> None:
    patch = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    before = np.zeros((1, 3, 256, 256), np.uint8)
    before[0, 1] = spots((60, 80)) | spots((128, 128), radius_px=2)
    for bias, mitosis in ((20.0, 255), (-20.0, 0)):
        scores = before.copy()
        stage(bias).judge([patch], scores)
        assert set(np.unique(scores[0, 1, 75:86, 55:66])) == {mitosis}
        assert scores[0, 1, 100:, 100:].max() == 0
        assert (scores[0, 0, 80, 60] > 200) == (mitosis == 0)


def test_a_patchs_probabilities_do_not_depend_on_its_companions(tmp_path: Path) -> None:
    patches = without_ink(3, 6)
    predictor = Predictor(with_second_stage(tmp_path / "b"), "cpu", "fp32", 4)
    together = predictor.predict(patches)
    assert together[:, 1].max() > 0
    alone = np.concatenate([predictor.predict(p[None]) for p in patches[::-1]])[::-1]
    assert np.array_equal(together, alone)


def test_a_bundle_with_a_second_stage_survives_a_round_trip(tmp_path: Path) -> None:
    saved = with_second_stage(tmp_path / "b")
    assert load_bundle(tmp_path / "b") == saved
    assert saved.first_stage_only().card.candidate_stage is None


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_second_stage_that_is_not_the_cards_is_refused(tmp_path: Path, damage: str) -> None:
    with_second_stage(tmp_path / "b")
    path = tmp_path / "b" / CLASSIFIER
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=CLASSIFIER):
        load_bundle(tmp_path / "b")


def test_operating_points_are_the_cards_and_one_that_it_lacks_is_refused(tmp_path: Path) -> None:
    bundle = with_second_stage(tmp_path / "b")
    assert bundle.card.least_peak("balanced") == 0.5
    assert bundle.card.least_peak("sensitive") == 0.3
    with pytest.raises(ModelError, match="no operating point 'specific'"):
        bundle.card.least_peak("specific")
    plain = save_bundle(tmp_path / "plain", trained_a_little("batch").state_dict(), card())
    assert plain.card.least_peak("balanced") == plain.card.thresholds.mitosis_peak


def test_a_classifier_wider_than_its_weights_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    bundle = with_second_stage(tmp_path / "b")
    stage = bundle.card.candidate_stage.model_copy(update={"width": 256, "members": 16})
    wide = replace(bundle, card=bundle.card.model_copy(update={"candidate_stage": stage}))
    with pytest.raises(ModelError, match="do not fit"):
        Predictor(wide, "cpu", "fp32", 1)
