"""What ends a training, or would spoil it: told in a sentence, with the last good checkpoint kept."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import cv2
import minugan_training.fitting.fit
import minugan_training.fitting.step
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from minugan_training.cli.main import app, main
from minugan_training.data.index import write_index
from minugan_training.data.labels import load_sample
from minugan_training.evaluation.metrics import Detections
from minugan_training.evaluation.thresholds import Setting, recalling
from minugan_training.fitting.checkpoint import save_weights
from minugan_training.fitting.distributed import local_device
from minugan_training.fitting.fit import fit
from minugan_training.fitting.metrics_log import draw_curves, read_metrics
from minugan_training.fitting.state import build_network
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment
from safetensors.torch import load_file
from torch import Tensor

import wsi_minugan.minugan.devices
from tests.training.test_data import pool
from tests.training.test_fit import settings
from wsi_minugan.errors import DataError, DeviceError, DiskFullError, TrainingError

NO_ROOM = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)
STARVED = """
import resource, sys
from pathlib import Path
import torch
from minugan_training.fitting.fit import fit
from minugan_training.data.index import read_index
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment
from wsi_minugan.errors import TrainingError
torch.set_num_threads(1)
root = Path(sys.argv[1])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    fit(Experiment.model_validate_json((root / "e.json").read_text()), Pool(root, read_index(root / "i.csv")), root / "run")
except TrainingError as e:
    sys.exit(str(e))
"""


def without_a_gradient(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a loss with the same finite values, whose gradient is not a number."""

    def broken(first: Tensor | list[Tensor], *others: object) -> Tensor:
        logits = first if isinstance(first, Tensor) else first[0]
        return loss(first, *others) + (logits * 0).sum().sqrt()

    return broken


@pytest.mark.parametrize(
    ("kind", "loss"), [("supervised", "supervised_loss"), ("adversarial", "focal_discriminator_loss")]
)
def test_a_gradient_that_is_no_number_stops_with_the_checkpoint_kept(
    kind: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, s = pool(tmp_path), settings(kind, checkpoint_every=1, steps=3)
    fit(s, p, tmp_path / "a", until_step=2)
    files = {f: f.read_bytes() for f in (tmp_path / "a").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(
            minugan_training.fitting.step,
            loss,
            without_a_gradient(getattr(minugan_training.fitting.step, loss)),
        )
        with pytest.raises(TrainingError, match="gradient of step 3 is not a number"):
            fit(s, p, tmp_path / "a")
    assert {f: f.read_bytes() for f in (tmp_path / "a").iterdir()} == files
    assert all(torch.isfinite(v).all() for v in fit(s, p, tmp_path / "a").values())


def test_weights_that_are_no_numbers_are_never_written(tmp_path: Path) -> None:
    s = settings("supervised", checkpoint_every=1, learning_rate=1e38)
    with pytest.raises(TrainingError, match="weights after step 1 are not numbers"):
        fit(s, pool(tmp_path), tmp_path / "a")
    assert not list((tmp_path / "a").glob("*.safetensors"))


def test_memory_that_runs_out_on_a_cpu_ends_in_a_sentence(tmp_path: Path) -> None:
    write_index(tmp_path / "i.csv", pool(tmp_path).entries)
    (tmp_path / "e.json").write_text(settings("supervised", ngf=32, patch_px=512).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", STARVED, str(tmp_path)],
        capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Memory ran out."), done.stderr


@pytest.mark.parametrize("error", [NO_ROOM, MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
@pytest.mark.parametrize("place", ["fit.train_step", "fit.mine", "validation.validation_figure"])
def test_memory_that_runs_out_anywhere_ends_in_the_same_sentence(
    error: Exception, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    p = pool(tmp_path)
    both = Pool(tmp_path, [*p.entries, p.entries[0].model_copy(update={"split": "val"})])
    s = settings(
        "supervised", mining={"every_steps": 1}, validation={"every_steps": 1, "patches": 1}, steps=2
    )
    monkeypatch.setattr(f"minugan_training.fitting.{place}", fail)
    with pytest.raises(TrainingError, match="Memory ran out"):
        fit(s, both, tmp_path / "a")


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(minugan_training.fitting.fit, "train_step", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        fit(settings("supervised"), pool(tmp_path), tmp_path / "a")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.97, None], ids=["empty", "a third", "almost all", "garbage"])
@pytest.mark.parametrize("kind", ["plain.tif", "deflate.tif", "baseline.jpg", "progressive.jpg", "x.png"])
def test_an_image_that_is_cut_short_or_garbage_is_named(
    kind: str, kept: float | None, tmp_path: Path
) -> None:
    p, path = pool(tmp_path), tmp_path / kind
    image = p.sample(0).image
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="rgb", compression="deflate" if "d" in kind else None)
    else:
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_PROGRESSIVE, int("progressive" in kind)])
    entry = p.entries[0].model_copy(update={"image": kind})
    assert load_sample(tmp_path, entry).image.shape == image.shape
    whole = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8).tobytes()
    path.write_bytes(noise if kept is None else whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=kind):
        fit(settings("supervised"), Pool(tmp_path, [entry]), tmp_path / "a")


def error_of(arguments: list[object], capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> str:
    """Return what a command that fails says, on its error stream."""
    patch.setattr(sys, "argv", ["minugan-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    return said


@pytest.fixture
def fit_arguments(tmp_path: Path) -> list[object]:
    """Return a command that would train."""
    write_index(tmp_path / "i.csv", pool(tmp_path).entries)
    (tmp_path / "e.yaml").write_text(settings("supervised", steps=1).model_dump_json())
    return [
        "fit",
        tmp_path / "e.yaml",
        "--index",
        tmp_path / "i.csv",
        "--root",
        tmp_path,
        "-o",
        tmp_path / "o",
    ]


def test_weights_to_start_from_that_do_not_fit_end_in_a_sentence(
    fit_arguments: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = tmp_path / "w.safetensors"
    call = [*fit_arguments, "--start-from", weights]
    assert f"{weights} cannot be read" in error_of(call, capsys, monkeypatch)
    weights.write_bytes(b"no weights")
    assert f"{weights} cannot be read" in error_of(call, capsys, monkeypatch)
    fit(settings("u-net", steps=1), pool(tmp_path), tmp_path / "other")
    weights.write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    assert "another network" in error_of(call, capsys, monkeypatch)
    fit(settings("supervised", steps=1, ngf=3), pool(tmp_path), tmp_path / "wider")
    weights.write_bytes((tmp_path / "wider" / "weights.safetensors").read_bytes())
    assert "ngf 2" in error_of(call, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("change", "words"), [({"losses": {}}, "losses.spots"), ({"fixed_norms": True}, "--start-from")]
)
def test_a_training_that_could_learn_nothing_right_is_refused(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=words):
        fit(settings("supervised", steps=1, **change), pool(tmp_path), tmp_path / "a")


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (DiskFullError("Full."), 1),
        (DataError("Wrong."), 2),
        (click.exceptions.Exit(3), 3),
        (SystemExit(4), 4),
    ],
)
def test_the_exit_status_is_that_of_how_a_command_ended(
    monkeypatch: pytest.MonkeyPatch, ended: BaseException, status: int
) -> None:
    def end(*_: object, **__: object) -> None:
        raise ended

    monkeypatch.setattr(app.commands["reproduce"], "callback", end)
    monkeypatch.setattr(sys, "argv", ["minugan-train", "reproduce", "x", "--index", "i", "--root", "r"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == status


def test_spots_alone_can_be_trained_on(tmp_path: Path) -> None:
    s = settings("supervised", steps=1, losses={"spots": 1.0})
    before, after = build_network(s).state_dict(), fit(s, pool(tmp_path), tmp_path / "a")
    assert any(not torch.equal(after[k], v) for k, v in before.items() if v.is_floating_point())


def test_weights_that_overflowed_are_not_started_from(tmp_path: Path) -> None:
    p, s = pool(tmp_path), settings("supervised", steps=1)
    weights = fit(s, p, tmp_path / "a")
    name = next(k for k in weights if k.endswith("running_var"))
    weights[name][0] = torch.inf
    save_weights(tmp_path, weights, "half.safetensors")
    with pytest.raises(TrainingError, match=r"half\.safetensors are not all numbers"):
        fit(s.model_copy(update={"start_from": str(tmp_path / "half.safetensors")}), p, tmp_path / "b")


def test_weights_with_other_norms_are_started_from(tmp_path: Path) -> None:
    plain = fit(settings("adversarial", steps=1), pool(tmp_path), tmp_path / "instance")
    start = str(tmp_path / "instance" / "weights.safetensors")
    s = settings("supervised", steps=1, start_from=start, learning_rate=1e-12)
    weights = fit(s, pool(tmp_path), tmp_path / "batch")
    assert all(torch.allclose(weights[k], v) for k, v in plain.items())


@pytest.mark.parametrize("command", ["fit", "crossval"])
def test_a_device_that_is_not_there_ends_in_a_sentence(
    command: str,
    fit_arguments: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wsi_minugan.minugan.devices, "has_gpu", lambda: False)
    call = [command, *fit_arguments[1:], "--device"]
    assert "No CUDA device" in error_of([*call, "cuda"], capsys, monkeypatch)
    assert "'tpu'" in error_of([*call, "tpu"], capsys, monkeypatch)
    assert local_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="tpu"):
        local_device("tpu")


@pytest.mark.parametrize("card", ["", "- a list\n", "name: x\n", "name: [\n", None])
def test_a_card_that_is_empty_or_incomplete_ends_in_a_sentence(
    card: str | None,
    fit_arguments: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(settings("supervised", steps=1), pool(tmp_path), tmp_path / "a")
    if card is not None:
        (tmp_path / "card.yaml").write_text(card)
    weights = tmp_path / "a" / "weights.safetensors"
    call = ["export", fit_arguments[1], weights, "--card", tmp_path / "card.yaml", "-o", tmp_path / "b"]
    assert "card.yaml" in error_of(call, capsys, monkeypatch)
    assert not (tmp_path / "b").exists()


def test_a_line_that_a_kill_broke_is_left_out_and_written_again(tmp_path: Path) -> None:
    p, s, folder = pool(tmp_path), settings("supervised", steps=4), tmp_path / "a"
    fit(s, p, folder, until_step=2)
    with (folder / "metrics.jsonl").open("a") as f:
        f.write('{"step": 3, "seconds": 1.')
    assert [r["step"] for r in read_metrics(folder)] == [1, 2]
    draw_curves(folder)
    fit(s, p, folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4]


def test_a_run_whose_best_weights_are_gone_says_so(tmp_path: Path) -> None:
    p = pool(tmp_path)
    both = Pool(tmp_path, [*p.entries, p.entries[0].model_copy(update={"split": "val"})])
    s: Experiment = settings("supervised", steps=2, validation={"every_steps": 1, "patches": 1})
    fit(s, both, tmp_path / "a")
    assert load_file(tmp_path / "a" / "best.safetensors")
    (tmp_path / "a" / "best.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"best\.safetensors"):
        fit(s, both, tmp_path / "a")


def test_a_runs_folder_that_is_a_file_ends_in_a_sentence(
    fit_arguments: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be made" in error_of([*fit_arguments[:-1], fit_arguments[3]], capsys, monkeypatch)


@pytest.mark.parametrize("option", [["--steps", "0"], ["--ngf", "0"], ["--patch-px", "0"]])
def test_a_scale_of_nought_is_refused_and_not_taken_for_none(
    option: list[str],
    fit_arguments: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = ["crossval", *fit_arguments[1:], *option]
    assert "does not take these values" in error_of(call, capsys, monkeypatch)


@pytest.mark.parametrize(
    "call",
    [
        ["evaluate", "--data", ".", "--index", "i.csv"],
        ["evaluate", "--data", ".", "--radius-um", "-3"],
        ["reproduce", ".", "--index", "i.csv", "--root", ".", "--pictures", "0"],
    ],
)
def test_options_that_make_no_sense_are_wrong_use(call: list[str]) -> None:
    assert CliRunner().invoke(app, call).exit_code == 2


def test_a_recall_that_no_setting_reaches_is_told() -> None:
    low, high = (Setting(0.5, 0.5, 8.0, Detections(1, 0, 0), recall) for recall in (0.4, 0.8))
    assert recalling([low, high], 0.5) == [high]
    with pytest.raises(DataError, match=r"highest is 0\.800"):
        recalling([low, high], 0.9)
