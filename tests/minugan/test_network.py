"""The generator's shapes, bundles, and a patch's independence of its companions."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wsi_minugan.config import Antialias
from wsi_minugan.errors import DeviceError, ModelError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import CARD, find_bundle, load_bundle, save_bundle, sha256_of
from wsi_minugan.minugan.devices import choose_device, prefers_bf16
from wsi_minugan.minugan.generator import BlurredConv2d, Generator, load_ordered
from wsi_minugan.minugan.ink import ink_in
from wsi_minugan.minugan.predictor import Predictor, from_squares
from wsi_minugan.minugan.scoring import by_squares
from wsi_minugan.slides.synthetic import SyntheticSlide

THRESHOLDS = {
    "mitosis": 0.5,
    "nucleus": 0.5,
    "boundary": 0.5,
    "mitosis_peak": 0.5,
    "mitosis_min_area_um2": 5.0,
    "nucleus_min_area_um2": 5.0,
}


def card(norm: str = "batch") -> dict[str, Any]:
    return {
        "name": "test",
        "version": "0",
        "architecture": {"ngf": 4, "norm": norm},
        "mpp": 0.25,
        "thresholds": THRESHOLDS,
        "training_data": ["none: random weights, for tests only"],
        "scores": {},
        "licence": "none",
    }


def trained_a_little(norm: str, antialias: Antialias = False) -> Generator:
    """Return a small generator whose batch statistics are not the identity."""
    torch.manual_seed(0)
    network = Generator(4, norm, antialias)
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(2, 3, 64, 64) * 2 - 1)
    return network.eval()


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_state_dict_of_other_names_loads_by_order_and_gives_the_same_output(norm: str) -> None:
    theirs = trained_a_little(norm)
    renamed = OrderedDict((f"model.{k}.x", t) for k, t in enumerate(theirs.state_dict().values()))
    ours = Generator(4, norm).eval()
    patch = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        assert not torch.equal(ours(patch), theirs(patch))
        load_ordered(ours, renamed)
        assert torch.equal(ours(patch), theirs(patch))


def test_a_state_dict_starts_with_the_global_network_and_ends_with_the_local_back() -> None:
    parts = [name.split(".")[0] for name in Generator(4, "instance").state_dict()]
    assert list(dict.fromkeys(parts)) == ["coarse", "front", "back"]


@pytest.mark.parametrize("change", ["order", "count", "shape"])
def test_a_state_dict_of_other_shapes_is_refused_and_changes_nothing(change: str) -> None:
    network = Generator(4, "instance")
    before = {k: t.clone() for k, t in network.state_dict().items()}
    state = list(network.state_dict().items())
    if change == "order":
        state.reverse()
    elif change == "count":
        state.pop()
    else:
        state[0] = (state[0][0], torch.zeros(1))
    with pytest.raises(ValueError, match="in order"):
        load_ordered(network, OrderedDict(state))
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())


@pytest.mark.parametrize(("ngf", "millions"), [(32, 182.7), (8, 11.4)])
def test_the_generator_has_the_published_size(ngf: int, millions: float) -> None:
    with torch.device("meta"):
        network = Generator(ngf, "instance")
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_generator_keeps_the_patch_size_and_ends_in_tanh() -> None:
    out = trained_a_little("instance")(torch.rand(1, 3, 256, 256))
    assert out.shape == (1, 3, 256, 256)
    assert out.abs().max() <= 1


def test_an_antialiased_generator_has_the_published_weights() -> None:
    published, blurred, wider = (Generator(4, "batch", antialias=a).state_dict() for a in (False, True, 5))
    for of in (blurred, wider):
        assert [(k, t.shape) for k, t in published.items()] == [(k, t.shape) for k, t in of.items()]


@pytest.mark.parametrize("blur_px", [3, 5, 7])
def test_what_is_finer_than_the_grid_does_not_depend_on_where_the_grid_lies(blur_px: int) -> None:
    torch.manual_seed(0)
    plain, blurred = torch.nn.Conv2d(1, 1, 3, 2, 1), BlurredConv2d(1, 1, 3, 2, 1, blur_px)
    blurred.load_state_dict(plain.state_dict())
    board = (torch.arange(34)[:, None] + torch.arange(34)) % 2 * 2.0 - 1
    with torch.no_grad():
        moved = [
            (conv(board[None, None, :32, :32]) - conv(board[None, None, 1:33, :32]))[..., 2:-2, 2:-2]
            for conv in (plain, blurred)
        ]
    assert moved[0].abs().min() > 0.1
    assert moved[1].abs().max() < 1e-6


def test_a_wider_blur_lets_less_of_half_the_grids_frequency_through() -> None:
    wave = torch.cos(torch.pi / 2 * torch.arange(64.0)).expand(64, 64)[None, None]
    kept = []
    for blur_px in (3, 5, 7):
        conv = BlurredConv2d(1, 1, 1, 1, 0, blur_px)
        with torch.no_grad():
            conv.weight.fill_(1.0)
            kept.append(float((conv(wave) - conv.bias)[..., 8:-8, 8:-8].abs().max()))
    assert kept == pytest.approx([1 / 2, 1 / 4, 1 / 8], abs=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1), (8, 3)])
def test_a_convolution_by_squares_is_the_same_convolution(sizes: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(sizes[0], 3, 7)
    x = torch.rand(2, sizes[0], 38, 46)
    with torch.no_grad():
        squares = by_squares(conv)(x).permute(0, 2, 3, 1)
        found = from_squares((255 * squares.sigmoid()).round().to(torch.uint8).numpy())
        expected = (255 * conv(x).sigmoid()).round().numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def test_a_field_that_came_later_changes_no_digest_of_a_card_that_lacks_it(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    later = {"patches_across": 2, "shifted_view_px": 11}
    written = json.loads((tmp_path / "b" / CARD).read_text())
    for name in later:
        del written[name]
    (tmp_path / "b" / CARD).write_text(json.dumps(written))
    assert load_bundle(tmp_path / "b").digest == bundle.digest
    fields = bundle.card.model_dump(mode="json", exclude=set(later))
    assert bundle.digest == hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()
    for name, value in later.items():
        (tmp_path / "b" / CARD).write_text(json.dumps(written | {name: value}))
        assert load_bundle(tmp_path / "b").digest != bundle.digest


def without_ink(seed: int, count: int) -> np.ndarray:
    """Return patches of noise in which green nowhere exceeds red."""
    patches = np.random.default_rng(seed).integers(0, 256, (count, 256, 256, 3), np.uint8)
    patches[..., 1] = np.minimum(patches[..., 0], patches[..., 1])
    return patches


@pytest.mark.parametrize(
    ("norm", "antialias"), [("batch", False), ("instance", False), ("batch", True), ("batch", 5)]
)
def test_folding_and_quantising_keep_the_scores(tmp_path: Path, norm: str, antialias: Antialias) -> None:
    network = trained_a_little(norm, antialias)
    fields = card(norm)
    fields["architecture"] |= {"antialias": antialias}
    bundle = save_bundle(tmp_path / "b", network.state_dict(), fields, fp16=False)
    patches = without_ink(0, 3)
    found = Predictor(bundle, "cpu", "fp32", 2).predict(patches)
    with torch.no_grad():
        x = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = np.rint((network(x).numpy() + 1) * 127.5)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_patch_has_the_same_scores_whatever_its_companions(tmp_path: Path, precision: str) -> None:
    bundle = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    patches = np.random.default_rng(1).integers(0, 256, (9, 256, 256, 3), np.uint8)
    predictor = Predictor(bundle, "cpu", precision, 4)
    together = predictor.predict(patches)
    alone = np.concatenate([predictor.predict(p[None]) for p in patches])
    turned = predictor.predict(patches[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, turned)


@pytest.mark.slow
@pytest.mark.parametrize("counts", ["mean", "highest"])
def test_what_may_hold_a_mitosis_has_the_mean_or_highest_score_of_four_mirrored_views(
    tmp_path: Path, counts: str
) -> None:
    weights = trained_a_little("batch").state_dict()
    patches = (without_ink(2, 7) * np.linspace(0.05, 1, 7)[:, None, None, None]).astype(np.uint8)
    once = Predictor(save_bundle(tmp_path / "once", weights, card()), "cpu", "fp32", 4)
    first = once.predict(patches)
    mirrors = ([], [2], [3], [2, 3])
    looks = [np.flip(once.predict(np.flip(patches, [a - 1 for a in m])), m) for m in mirrors]
    wanted = (np.sum(looks, axis=0) + 2) // 4
    if counts == "highest":
        wanted[:, 1] = np.max(looks, axis=0)[:, 1]
    peaks = first[:, 1, 16:-16, 16:-16].max(axis=(1, 2))
    least = int(np.median(peaks))
    again = card() | {"test_time_augmentation": {"least_score": least / 255, "mitosis": counts}}
    predictor = Predictor(save_bundle(tmp_path / "again", weights, again), "cpu", "fp32", 4)
    found = predictor.predict(patches)
    doubtful = peaks >= least
    assert 0 < doubtful.sum() < 7
    assert np.array_equal(found[~doubtful], first[~doubtful])
    # Batches of another size may round a score the other way.
    assert np.abs(found[doubtful].astype(int) - wanted[doubtful]).max() <= 1
    assert predictor.forwards == 7 + 3 * doubtful.sum()
    alone = np.concatenate([predictor.predict(p[None]) for p in patches[::-1]])[::-1]
    assert np.array_equal(found, alone)


def test_a_second_view_is_of_what_lies_a_few_px_further_and_the_mean_counts(tmp_path: Path) -> None:
    weights, px = trained_a_little("batch").state_dict(), 11
    once = Predictor(save_bundle(tmp_path / "once", weights, card()), "cpu", "fp32", 4)
    twice = save_bundle(tmp_path / "twice", weights, card() | {"shifted_view_px": px})
    image = np.random.default_rng(4).integers(0, 256, (2, 256 + px, 256 + px, 3), np.uint8)
    image[:, -px:] = image[:, -px - 2 : -2 * px - 2 : -1]
    image[:, :, -px:] = image[:, :, -px - 2 : -2 * px - 2 : -1]
    patches = image[:, :256, :256]
    here, there = once.first_stage(patches).astype(int), once.first_stage(image[:, px:, px:])
    wanted = here.copy()
    wanted[..., px:, px:] = (here[..., px:, px:] + there[..., :-px, :-px] + 1) // 2
    predictor = Predictor(twice, "cpu", "fp32", 4)
    assert np.array_equal(predictor.first_stage(patches), wanted)
    assert (wanted != here).mean() > 0.3
    assert predictor.forwards == 4


@pytest.mark.parametrize(
    ("vendor", "flags", "faster"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "avx512f avx512_bf16", False),
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx2", False),
    ],
)
def test_bf16_is_for_processors_known_to_be_faster_in_it(vendor: str, flags: str, faster: bool) -> None:
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n"
    assert prefers_bf16(one + "\n" + one) is faster
    assert not prefers_bf16("")


def test_a_bundle_survives_a_round_trip(tmp_path: Path) -> None:
    saved = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    assert load_bundle(tmp_path / "b") == saved


def test_statistics_too_large_for_half_precision_are_kept(tmp_path: Path) -> None:
    network = trained_a_little("batch")
    network.get_buffer("coarse.2.running_var")[:] = 1e5
    saved = load_file(save_bundle(tmp_path / "b", network.state_dict(), card()).weights)
    assert saved["coarse.1.weight"].dtype == torch.float16
    assert (saved["coarse.2.running_var"] == 1e5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, value: float) -> None:
    network = trained_a_little("batch")
    with torch.no_grad():
        network.get_parameter("coarse.1.weight")[0] = value  # half precision ends at 65504
    with pytest.raises(ModelError, match="not all numbers"):
        save_bundle(tmp_path / "b", network.state_dict(), card())


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    data = bytearray(bundle.weights.read_bytes())
    data[-1] ^= 1
    bundle.weights.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="not those of the card"):
        load_bundle(bundle.path)


@pytest.mark.parametrize("change", [{"schema_version": 99}, {"surprise": 1}, {"mpp": -1}])
def test_a_wrong_card_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    bundle = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    path = bundle.path / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="not a model card"):
        load_bundle(bundle.path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "b", Generator(2, "batch").state_dict(), card())
    with pytest.raises(ModelError, match="architecture"):
        Predictor(bundle, "cpu")


def test_an_unknown_model_is_named_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="default"):
        find_bundle("no-such-model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_without_a_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="cpu"):
        choose_device("cuda")


def test_a_path_is_never_taken_for_a_bundled_model_of_the_same_name(tmp_path: Path) -> None:
    own = tmp_path / "default"
    own.mkdir()
    (own / CARD).touch()
    assert find_bundle(str(own)) == own
    assert find_bundle("default") != own


@pytest.mark.slow
@pytest.mark.parametrize(
    "ink", [(20, 110, 80), (30, 60, 160), (15, 40, 35)], ids=["green", "blue", "black-green"]
)
def test_there_is_no_mitosis_in_ink(ink: tuple[int, int, int]) -> None:
    drawing = SyntheticSlide(1200, 1200, seed=4, mitoses=6)
    predictor = Predictor(load_bundle(find_bundle("default")), "cpu", "fp32", 1)
    patches = [drawing.draw(Box(int(y) - 128, int(x) - 128, 256, 256)) for x, y in drawing.mitoses_xy_px]
    found = predictor.predict(patches)[:, 1, 100:156, 100:156].max(axis=(1, 2))
    assert found.max() > 150
    patch = patches[int(found.argmax())]
    assert not ink_in(patch).any()
    inked = patch.copy()
    cv2.line(inked, (60, 128), (196, 128), ink, 40)
    assert ink_in(inked)[115:140, 70:186].all()
    assert not ink_in(inked)[:90].any()
    assert predictor.predict([inked])[0, 1, 108:148, 60:196].max() == 0


def test_a_model_with_weights_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "b", trained_a_little("batch").state_dict(), card())
    state = load_file(bundle.weights)
    state["coarse.2.running_var"][0] = float("inf")
    save_file(state, bundle.weights)
    path = bundle.path / CARD
    changed = json.loads(path.read_text()) | {"weights_sha256": sha256_of(bundle.weights)}
    path.write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="not all numbers"):
        Predictor(load_bundle(bundle.path), "cpu")
