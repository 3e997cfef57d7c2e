"""Schedulers and workers that somebody started outside: they go, have threads, lack the package, or never come."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster
from minugan_jobs.clusters.cluster import open_cluster
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide


class Outside:
    """A scheduler and its workers, each a process as `dask scheduler` and `dask worker` make it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        while not self.file.is_file() or not self.file.read_text().endswith("}"):
            assert self.scheduler.poll() is None
            time.sleep(0.05)
        self.address: str = json.loads(self.file.read_text())["address"]

    def start(self, what: str, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self.file), *options]
        with (self.folder / f"{what}.log").open("ab") as log:
            process = subprocess.Popen(
                call, cwd=self.folder, stdout=log, stderr=log, env=os.environ | (env or {})
            )
        self.processes.append(process)
        return process

    def worker(self, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        return self.start("worker", "--no-dashboard", "--host", "127.0.0.1", *options, env=env)

    def run(self, slides: Path, out: Path, *options: str) -> subprocess.Popen[str]:
        """Start a run of the command line on this scheduler."""
        code = "from minugan_cli.main import main; main()"
        call = [sys.executable, "-c", code, "run", slides, "-o", out, "--scheduler", self.address, "--quiet"]
        return subprocess.Popen(
            [*map(str, call), "--block", "512", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
            process.wait()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    (tmp_path / "dask").mkdir()
    started = Outside(tmp_path / "dask")
    yield started
    started.close()


def log_of(out: Path) -> list[dict[str, str]]:
    """Return the events that a run wrote down."""
    if not (out / "log.jsonl").is_file():
        return []
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def wait_for(run: subprocess.Popen[str], out: Path, event: str) -> None:
    while all(e["event"] != event for e in log_of(out)):
        assert run.poll() is None
        time.sleep(0.05)


def states_of(out: Path) -> set[str]:
    with (out / "slides.csv").open(encoding="utf-8-sig") as f:
        return {row["status"] for row in csv.DictReader(f)}


def test_a_scheduler_that_goes_on_keeps_no_worker_state_of_a_run_and_that_of_another_stays(
    tmp_path: Path,
) -> None:
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        (worker,) = cluster.workers.values()
        settings = RunSettings(scheduler=cluster.scheduler_address)

        def states() -> tuple[set[str], set[str]]:
            return {n for n in cluster.scheduler.worker_plugins if "run" in n}, {
                n for n in worker.plugins if "run" in n
            }

        with open_cluster(settings, WorkerState("run 1")):
            with open_cluster(settings, WorkerState("run 2")):
                assert states() == ({"run 1", "run 2"}, {"run 1", "run 2"})
            assert states() == ({"run 1"}, {"run 1"})
        assert states() == (set(), set())


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_run_with_a_sentence_and_its_slides_wait(
    tmp_path: Path, outside: Outside
) -> None:
    for k in range(2):
        (tmp_path / "slides").mkdir(exist_ok=True)
        write_slide(tmp_path / "slides" / f"s{k}.tiff", SyntheticSlide(1100, 900, seed=k, mitoses=4))
    outside.worker("--nthreads", "1")
    run = outside.run(tmp_path / "slides", tmp_path / "o")
    wait_for(run, tmp_path / "o", "planned")
    outside.scheduler.kill()
    _, told = run.communicate(timeout=600)
    assert run.returncode == 1
    assert told.splitlines() == [
        f"Error: The Dask scheduler at {outside.address} is gone. Start it and its workers, then run the same command again "
        "to resume."
    ]
    assert states_of(tmp_path / "o") == {"pending"}
    assert ">running<" not in (tmp_path / "o" / "report.html").read_text()
    assert "is gone" in log_of(tmp_path / "o")[-1]["error"]


def results_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_worker_with_four_threads_gives_the_bytes_of_workers_with_one(
    tmp_path: Path, outside: Outside, slide: Path, finished: Path
) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / slide.name).symlink_to(slide)
    for k in range(
        3
    ):  # more slides than a worker keeps open, so that readers are closed while others are used
        write_slide(tmp_path / "slides" / f"s{k}.tiff", SyntheticSlide(900, 700, seed=k, mitoses=4))
    outside.worker("--nthreads", "4")
    run = outside.run(tmp_path / "slides", tmp_path / "o")
    _, told = run.communicate(timeout=800)
    assert run.returncode == 0, told
    assert results_of(tmp_path / "o" / slide.stem) == results_of(finished / slide.stem)


@pytest.mark.slow
def test_a_worker_that_lacks_the_package_is_named_before_anything_begins(
    tmp_path: Path, outside: Outside, slide: Path
) -> None:
    lacking = tmp_path / "lacking.py"
    lacking.write_text("import sys\nsys.modules['minugan_jobs'] = None\n")
    outside.worker("--nthreads", "1")
    outside.worker("--nthreads", "1", "--name", "lacking", "--preload", str(lacking))
    with Client(outside.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=600)
        workers = client.scheduler_info(n_workers=-1)["workers"]
    (address,) = [a for a, w in workers.items() if w["name"] == "lacking"]
    run = outside.run(slide, tmp_path / "o")
    _, told = run.communicate(timeout=600)
    assert run.returncode == 2
    (line,) = told.splitlines()
    assert line.startswith(f"Error: 1 Dask worker cannot run this program. The one at {address} says: ")
    assert "Install version" in line
    assert states_of(tmp_path / "o") == {"pending"}
