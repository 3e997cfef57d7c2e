"""Files that users hand in and that anybody may have made: YAML and model bundles. Each is taken, or refused in a sentence.

`MINUGAN_FUZZ_S=600` goes on for ten minutes each; what was found so stands below as examples.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from minugan_jobs.clusters.cluster_file import ClusterFile
from safetensors.torch import save

from tests.fuzzing import FUZZ_S, examples, for_a_while
from wsi_minugan.config import RunSettings, load_settings, read_yaml
from wsi_minugan.errors import MinuganError, ModelError, SettingsError
from wsi_minugan.minugan.bundle import CARD, WEIGHTS, load_bundle, save_bundle
from wsi_minugan.minugan.generator import Generator
from wsi_minugan.minugan.predictor import Predictor

pytestmark = pytest.mark.timeout(max(900, 2 * FUZZ_S))
BOUNDS = examples(60)


def check_yaml(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(text, "utf-8", errors="surrogatepass")
        begin = time.monotonic()
        for read in (lambda: load_settings(path, {}), lambda: read_yaml(path, ClusterFile, "cluster file")):
            try:
                read()
            except SettingsError as e:
                assert len(str(e)) < 20_000
        assert time.monotonic() - begin < 30


PIECES = st.sampled_from(
    [
        *(
            f"{name}: "
            for name in (
                *RunSettings.model_fields,
                "kind",
                "workers",
                "options",
                "minimum",
                "stride",
                "block-px",
            )
        ),
        *(
            "slurm",
            "cuda",
            "\n",
            "\n  ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "&a ",
            "*a",
            "<<: ",
            "? ",
            "!!python/name:os.system ",
        ),
        *(
            "!!int ",
            "!!binary ",
            "!!set ",
            "!!omap ",
            "!!timestamp ",
            "2020-13-45",
            "0x",
            "1e999",
            ".nan",
            "-.inf",
            "~",
            "null",
        ),
        *(
            "---\n",
            "...\n",
            "%YAML 9.9\n",
            '"',
            "'",
            "\\x",
            "|\n",
            ">\n",
            "#",
            ":",
            "\t",
            "\0",
            "\ufeff",
            "\ud800",
            "٣",
            "1_000",
        ),
        *("9" * 5000, "[" * 300, "{a: " * 300, "0.25", "true", "1:30:00", "190:20:30.15"),
    ]
)


@for_a_while
@given(st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=200)))
@example("threads: " + "9" * 5000)
@example("stall_s: 1:30:00")
@example("mpp: .nan")
@example("? [a]\n: b")
@example("!!binary x: 1")
@example("a: &a {<<: *a}")
@example("<<: [1]")
@example("=: 1")
@example('stage_dir: "a\\0b"')
@example("- " * 5000)
@example("model: \ud800")
@example("!!timestamp ")
@example("workers: !!int ''")
@example("mpp: !!float ''")
@example("tissue: !!bool x")
@example("? !!timestamp x\n: 1")
@BOUNDS
def test_a_yaml_file_is_taken_or_refused_in_a_sentence(text: str) -> None:
    check_yaml(text)


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], bytes]:
    """Return a small bundle's card and weights."""
    card = {
        "name": "small",
        "version": "1",
        "architecture": {"ngf": 1, "norm": "batch"},
        "mpp": 0.25,
        "thresholds": {
            "mitosis": 0.5,
            "nucleus": 0.5,
            "boundary": 0.5,
            "mitosis_min_area_um2": 1.0,
            "nucleus_min_area_um2": 1.0,
        },
        "training_data": ["none"],
        "scores": {},
        "licence": "none",
    }
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_bundle(Path(folder), Generator(1, "batch").state_dict(), card)
        return json.loads((bundle.path / CARD).read_bytes()), bundle.weights.read_bytes()


def check_bundle(card: bytes, weights: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / CARD).write_bytes(card)
        (path / WEIGHTS).write_bytes(weights)
        begin = time.monotonic()
        try:
            Predictor(load_bundle(path), "cpu", "fp32", 1)
        except MinuganError as e:
            assert len(str(e)) < 20_000
        assert time.monotonic() - begin < 60


def sealed(card: dict[str, Any], weights: bytes) -> bytes:
    """Return a card that fits weights of anybody's making."""
    return json.dumps(card | {"weights_sha256": hashlib.sha256(weights).hexdigest()}).encode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@for_a_while
@given(st.data())
@BOUNDS
def test_a_changed_card_is_taken_or_refused_in_a_sentence(
    parts: tuple[dict[str, Any], bytes], data: st.DataObject
) -> None:
    card, weights = parts
    changed = dict(card)
    for key in data.draw(st.lists(st.sampled_from([*card, "more"]), min_size=1, max_size=3)):
        changed[key] = data.draw(VALUES)
    if data.draw(st.booleans()):
        inner = dict(card["thresholds"])
        inner[data.draw(st.sampled_from([*inner, "mitosis_peak"]))] = data.draw(VALUES)
        changed["thresholds"] = inner
    check_bundle(
        sealed(changed, weights) if data.draw(st.booleans()) else json.dumps(changed).encode(), weights
    )


@for_a_while
@given(st.data())
@BOUNDS
def test_changed_weights_with_a_card_that_fits_are_taken_or_refused_in_a_sentence(
    parts: tuple[dict[str, Any], bytes], data: st.DataObject
) -> None:
    card, weights = parts
    head = int.from_bytes(weights[:8], "little")
    changed = bytearray(weights)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(changed) - 1, head + 40)))
        how = data.draw(st.sampled_from(["set", "cut", "insert", "digit"]))
        if how == "set":
            changed[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del changed[place : place + data.draw(st.integers(1, 50))]
        elif how == "insert":
            changed[place:place] = data.draw(st.binary(max_size=9))
        elif chr(changed[place]).isdigit():
            changed[place] = ord("9")
        if not changed:
            return
    check_bundle(sealed(card, bytes(changed)), bytes(changed))


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "none": lambda s: {},
    "other names": lambda s: {f"x.{k}": v for k, v in s.items()},
    "other shapes": lambda s: {k: v.flatten() for k, v in s.items()},
    "whole numbers": lambda s: {k: v.to(torch.int8) for k, v in s.items()},
    "no numbers": lambda s: {k: torch.full_like(v, torch.nan) for k, v in s.items()},
    "truth values": lambda s: {k: v.bool() for k, v in s.items()},
    "complex numbers": lambda s: {k: v.to(torch.complex64) for k, v in s.items()},
    "floats of 8 bits": lambda s: {k: v.to(torch.float8_e4m3fn) for k, v in s.items()},
    "empty": lambda s: {k: v.reshape(-1)[:0] for k, v in s.items()},
    "one lacking": lambda s: dict(list(s.items())[1:]),
}


@pytest.mark.parametrize("kind", list(TENSORS))
def test_weights_of_every_kind_are_taken_or_refused_in_a_sentence(
    parts: tuple[dict[str, Any], bytes], kind: str
) -> None:
    state = {k: v.float() for k, v in Generator(1, "batch").state_dict().items()}
    weights = save(TENSORS[kind](state))
    check_bundle(sealed(parts[0], weights), weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: b"",
        lambda w: w[: len(w) // 2],
        lambda w: b"x" + w,
        lambda w: w + b"more",
        lambda w: w.replace(b'"F16"', b'"XX1"', 1),
        lambda w: w.replace(b"F16", b"F32", 1),
        lambda w: w[:8] + b"[" * 100 + w[108:],
    ],
)
def test_weights_that_are_no_safetensors_are_refused(
    parts: tuple[dict[str, Any], bytes], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    weights = change(parts[1])
    (tmp_path / CARD).write_bytes(sealed(parts[0], weights))
    (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ModelError, match="cannot be read"):
        Predictor(load_bundle(tmp_path), "cpu", "fp32", 1)


@pytest.mark.parametrize("ngf", [1, 256])
def test_an_architecture_that_its_weights_do_not_fit_is_refused(
    parts: tuple[dict[str, Any], bytes], ngf: int
) -> None:
    card = parts[0] | {"architecture": {"ngf": ngf, "norm": "instance"}}
    check_bundle(sealed(card, parts[1]), parts[1])


@pytest.mark.parametrize(
    "card",
    [b"", b"\xff\xfe", b"[" * 100_000, b'{"scores": ' + b"[" * 5000 + b"]" * 5000 + b"}", b"NaN", b"1e999"],
)
def test_a_card_that_is_none_is_refused(parts: tuple[dict[str, Any], bytes], card: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CARD).write_bytes(card)
        (Path(folder) / WEIGHTS).write_bytes(parts[1])
        with pytest.raises(MinuganError):
            load_bundle(Path(folder))
