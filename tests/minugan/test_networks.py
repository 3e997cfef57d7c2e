"""Networks in a process that several share: the same answers as here, whatever is asked, and plain words when it fails."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.minugan.test_network import without_ink
from tests.minugan.test_second_stage import with_second_stage
from wsi_minugan.config import MOST_PATCHES_ACROSS
from wsi_minugan.errors import DeviceError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.networks.messages import BadMessageError, Request, line_of, memory_bytes, request_of
from wsi_minugan.minugan.networks.own import OwnNetworks
from wsi_minugan.minugan.networks.shared import LOG, SharedNetworks
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.minugan.stain import StainMap

STAIN = StainMap(((0.9, 0.0, 0.1), (0.0, 1.1, 0.0), (0.0, 0.1, 1.0)), (0.02, -0.01, 0.0))


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    path = folder / "network.socket"
    call = [sys.executable, "-m", "wsi_minugan.minugan.networks.server"]
    options = ["--model", str(model), "--socket", str(path), "--precision", "fp32", "--batch-size", "4"]
    with (folder / LOG).open("wb") as said:
        process = subprocess.Popen([*call, *options], stdin=subprocess.PIPE, stdout=said, stderr=said)
    try:
        yield path, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_second_stage(tmp_path_factory.mktemp("model") / "b")


@pytest.fixture(scope="module")
def path(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with serving(bundle.path, tmp_path_factory.mktemp("server")) as (path, _):
        yield path


def test_another_process_gives_the_same_answers_in_any_number_of_messages(bundle: Bundle, path: Path) -> None:
    own = OwnNetworks(bundle, "cpu", "fp32", 4, threads=1, compiled=False)
    patches = np.stack(without_ink(3, 7))
    windows = np.tile(patches[:3], (1, 2, 2, 1))
    crops = np.random.default_rng(1).integers(0, 255, (50, 64, 64, 3), np.uint8)
    for held in (3, 16):
        shared = SharedNetworks(path, bundle.digest, patches=held)
        assert (shared.device_type, shared.precision, shared.batch_size) == ("cpu", "fp32", 4)
        assert np.array_equal(shared.scores(patches), own.scores(patches))
        assert np.array_equal(shared.scores(list(patches), 3), own.scores(patches, 3))
        assert np.array_equal(shared.scores(windows), own.scores(windows))
        assert np.array_equal(shared.logits(crops), own.logits(crops))
        assert np.array_equal(shared.restained(patches, STAIN), own.restained(patches, STAIN))
        shared.close()


def test_a_predictor_does_not_mind_who_runs_its_networks(bundle: Bundle, path: Path) -> None:
    patches = without_ink(3, 6)
    here = Predictor(bundle, "cpu", "fp32", 4)
    there = Predictor(bundle, networks=SharedNetworks(path, bundle.digest, patches=4))
    assert (there.device, there.precision, there.batch_size) == ("cpu", "fp32", 4)
    for stain in (None, STAIN):
        assert np.array_equal(here.predict(patches, stain), there.predict(patches, stain))


def test_a_worker_needs_no_torch_to_use_them(bundle: Bundle, path: Path) -> None:
    code = f"""
import sys, numpy as np
from pathlib import Path
from wsi_minugan.minugan.bundle import load_bundle
from wsi_minugan.minugan.networks.shared import SharedNetworks
from wsi_minugan.minugan.predictor import Predictor
bundle = load_bundle(Path({str(bundle.path)!r}))
networks = SharedNetworks(Path({str(path)!r}), bundle.digest, 2)
assert Predictor(bundle, networks=networks).predict(np.zeros((1, 256, 256, 3), np.uint8)).shape == (1, 3, 256, 256)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_process_with_another_model_is_refused(path: Path) -> None:
    with pytest.raises(DeviceError, match="another model"):
        SharedNetworks(path, "0" * 64, patches=2)


def test_what_a_process_says_that_cannot_begin_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty", tmp_path) as (path, process):
        process.wait()
        with pytest.raises(DeviceError, match=r"does not begin.*card"):
            SharedNetworks(path, "0" * 64, patches=2, wait_s=0.2)


def test_a_process_that_dies_is_asked_for_again_and_given_up_in_the_end(
    bundle: Bundle, tmp_path: Path
) -> None:
    patches = np.zeros((2, 256, 256, 3), np.uint8)
    with serving(bundle.path, tmp_path) as (path, process):
        shared = SharedNetworks(path, bundle.digest, patches=2)
        before = shared.scores(patches)
        process.kill()
        process.wait()
        with serving(bundle.path, tmp_path):
            assert np.array_equal(shared.scores(patches), before)
    shared._wait_s = 0.2
    with pytest.raises(DeviceError, match=r"does not begin|ended 3 times"):
        shared.scores(patches)


def test_a_process_ends_when_whoever_started_it_is_gone(bundle: Bundle, tmp_path: Path) -> None:
    with serving(bundle.path, tmp_path) as (_, process):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b'{"do":"scores","count":1}\n',
        b'{"do":"open","count":0}\n',
        b"\xff\n",
    ],
)
def test_who_says_something_else_is_sent_away_and_others_are_answered(
    bundle: Bundle, path: Path, said: bytes
) -> None:
    SharedNetworks(path, bundle.digest, patches=1)  # it is ready
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(60)
        stranger.connect(str(path))
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
    assert SharedNetworks(path, bundle.digest, patches=1).batch_size == 4


@pytest.mark.parametrize(
    "request_",
    [
        Request(do="scores", count=MOST_PATCHES_ACROSS**2 + 1),
        Request(do="open", count=1),
        Request(do="restained", count=1),
    ],
)
def test_a_request_for_more_than_the_memory_holds_ends_the_talk(
    bundle: Bundle, path: Path, request_: Request
) -> None:
    shared = SharedNetworks(path, bundle.digest, patches=1)
    assert shared._socket is not None
    shared._socket.sendall(line_of(request_))
    assert shared._answers is not None
    assert shared._answers.readline() == b""
    assert shared.scores(np.zeros((1, 256, 256, 3), np.uint8)).shape == (1, 128, 128, 12)


def test_messages_survive_a_round_trip_and_wrong_ones_do_not() -> None:
    for message in (Request(do="restained", count=3, stain=STAIN), Request(do="scores", count=1, at_once=3)):
        assert request_of(line_of(message)) == message
    for line in (
        b"",
        b"{}",
        b'{"do":"run","count":1}',
        b'{"do":"scores","count":-1}',
        b'{"do":"scores","count":1,"at_once":0}',
    ):
        with pytest.raises(BadMessageError):
            request_of(line)
    for patches in (0, 5000):
        with pytest.raises(BadMessageError):
            memory_bytes(patches)
