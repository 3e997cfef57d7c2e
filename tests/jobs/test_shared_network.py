"""A run whose workers share the process that runs the network: the same files, also when that process dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from minugan_cli.running import _pace
from minugan_jobs.clusters.cluster import shares_network, worker_count
from minugan_jobs.clusters.network_process import shared_network

from tests.jobs.test_kill import end_all, wait_until, work_done
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import DeviceError, SettingsError
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.networks.shared import SharedNetworks
from wsi_minugan.outputs.manifest import read_manifest

MODULE = "wsi_minugan.minugan.networks.server"


def start(slide: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    code = "from minugan_cli.main import main; main()"
    options = ("--workers", "2", "--block", "512", "--share-network", "--quiet")
    call = [sys.executable, "-c", code, "run", str(slide), "-o", str(out), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as told:
        return subprocess.Popen(call, stdout=told, stderr=told, start_new_session=True, env=environment)


def network_of(run: subprocess.Popen[bytes]) -> psutil.Process | None:
    for process in psutil.Process(run.pid).children():
        try:
            if MODULE in process.cmdline():
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def test_a_run_that_shares_its_network_has_the_same_files_also_when_its_process_is_killed(
    slide: Path, finished: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    run = start(slide, out, log)
    wait_until(run, lambda: work_done(out) > 3)
    first = network_of(run)
    assert first is not None, log.read_text()
    first.kill()
    wait_until(run, lambda: (now := network_of(run)) is not None and now.pid != first.pid)
    assert run.wait(600) == 0, log.read_text()
    same = (read_manifest(folder / slide.stem).files for folder in (out, finished))
    assert next(same) == next(same)


def test_the_process_goes_with_a_run_that_is_killed(slide: Path, tmp_path: Path) -> None:
    run = start(slide, tmp_path / "out", tmp_path / "log")
    wait_until(run, lambda: network_of(run) is not None)
    process = network_of(run)
    assert process is not None, (tmp_path / "log").read_text()
    end_all(run)
    process.wait(60)


def test_ctrl_c_ends_the_run_in_order(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = start(slide, out, tmp_path / "log")
    wait_until(run, lambda: work_done(out) > 3)
    process = network_of(run)
    os.killpg(run.pid, signal.SIGINT)
    run.wait(120)
    assert process is not None
    end = time.monotonic() + 60
    while process.is_running() and time.monotonic() < end:
        time.sleep(0.1)
    assert not process.is_running()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_one_gpu_is_one_processs_and_the_other_cores_feed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minugan_jobs.clusters.cluster.usable_cores", lambda: 8)
    for settings, shared, workers in (
        (RunSettings(device="cuda"), True, 7),
        (RunSettings(device="cuda", share_network=False), False, 1),
        (RunSettings(device="cuda", workers=3), True, 3),
        (RunSettings(device="cpu"), False, 8),
        (RunSettings(device="cpu", threads=4), False, 2),
        (RunSettings(device="cpu", share_network=True), True, 7),
        (RunSettings(device="cuda", cluster="cuda.yaml"), False, 1),
    ):
        assert shares_network(settings) == shared
        assert worker_count(settings) == workers


@pytest.mark.parametrize("elsewhere", [{"scheduler": "tcp://host:8786"}, {"cluster": "slurm.yaml"}])
def test_workers_elsewhere_cannot_share_it(elsewhere: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="--share-network"):
        shares_network(RunSettings(share_network=True, **elsewhere))


def test_a_folder_too_deep_for_a_socket_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with (
        pytest.raises(SettingsError, match="TMPDIR"),
        shared_network(RunSettings(device="cpu", share_network=True), tmp_path),
    ):
        pass


def test_a_process_that_never_begins_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minugan_jobs.clusters.network_process._MOST_ENDS", 2)
    (tmp_path / "no-model").mkdir()
    settings, begun = RunSettings(device="cpu", share_network=True), time.monotonic()
    with (
        shared_network(settings, tmp_path / "no-model") as path,
        pytest.raises(DeviceError, match=r"does not begin.*card"),
    ):
        SharedNetworks(path, "0" * 64, patches=1)
    assert time.monotonic() - begun < 120


def test_a_dry_run_divides_no_time_among_workers_that_share_one_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsi_minugan.pipeline.estimate.seconds_per_patch", lambda *_: 0.02)
    bundle = load_bundle(find_bundle("default"))
    own_s, told = _pace(bundle, RunSettings(device="cpu", workers=4))
    assert own_s == 0.02 / 4
    assert "with 4 workers" in told
    shared_s, told = _pace(bundle, RunSettings(device="cpu", workers=4, share_network=True))
    assert shared_s == 0.02
    assert "all workers share" in told
