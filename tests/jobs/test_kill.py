"""A batch killed at any moment goes on, and ends with the bytes of an undisturbed one."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pytest

from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide


def start(
    slides: Path, out: Path, told: int | IO[bytes] = subprocess.DEVNULL, workers: int = 1
) -> subprocess.Popen[bytes]:
    code = "from minugan_cli.main import main; main()"
    options = ("--workers", str(workers), "--block", "512", "--quiet")
    call = [sys.executable, "-c", code, "run", str(slides), "-o", str(out), *options]
    return subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)


def digests(out: Path) -> dict[str, str]:
    """Return every result file's digest; times and hosts live in the ledger, run.json, the log, the table and the report."""
    found = {}
    for path in sorted(out.glob("*/**/*")):
        if path.is_file():
            found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill a whole run, as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_batch(folder: Path) -> None:
    """Write five slides, of which three cannot be done."""
    folder.mkdir()
    for k in range(2):
        write_slide(folder / f"s{k}.tiff", SyntheticSlide(1000, 800, seed=k, mitoses=4))
    data = (folder / "s0.tiff").read_bytes()
    (folder / "truncated.tiff").write_bytes(data[: len(data) // 2])
    write_slide(folder / "blank.tiff", SyntheticSlide(800, 800, tissue_fraction=0.0))
    write_slide(folder / "no mpp.tiff", SyntheticSlide(600, 600, mpp=0.0001))


def _works(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def workers_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [p for p in psutil.Process(run.pid).children(recursive=True) if _works(p)]


def wait_until(run: subprocess.Popen[bytes], true: Callable[[], bool]) -> None:
    """Return once something is so, or the run has ended: how long that takes is the machine's affair."""
    while run.poll() is None and not true():
        time.sleep(0.02)


def work_done(out: Path) -> int:
    """Return how much of a batch is done: the files that stages and results left so far.

    `os.walk` passes over a folder that the run removes meanwhile; `Path.glob` raises.
    """
    found = (name for folder, _, names in os.walk(out) if Path(folder) != out for name in names)
    return sum(1 for name in found if not name.endswith(".partial"))


def kill_client(run: subprocess.Popen[bytes]) -> None:
    run.kill()  # the workers end by themselves
    run.wait()


def kill_worker_then_all(run: subprocess.Popen[bytes]) -> None:
    for worker in workers_of(run)[:1]:
        worker.kill()
    time.sleep(1)
    end_all(run)


KILLS = [kill_client, kill_worker_then_all, end_all]
"""tests/benchmarks/chaos.py goes on to a hundred."""


def kill_once(slides: Path, out: Path, turn: int, rng: random.Random) -> bool:
    """Start a run and kill it, as its turn says, once it got a random step further; False if it ended before."""
    run = start(slides, out, workers=2)
    enough = work_done(out) + rng.randint(1, 20)
    wait_until(run, lambda: work_done(out) >= enough)
    if run.poll() is not None:
        return False
    KILLS[turn % len(KILLS)](run)
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_batch_killed_at_random_moments_ends_byte_for_byte_the_same(tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "b"
    write_batch(slides)
    assert start(slides, tmp_path / "a").wait() == 1
    expected = digests(tmp_path / "a")
    assert any(name.endswith("manifest.json") for name in expected)
    rng = random.Random(11)
    assert sum(kill_once(slides, out, turn, rng) for turn in range(len(KILLS))) > 1
    assert start(slides, out).wait() == 1
    assert digests(out) == expected


def begin(slide: Path, out: Path, told: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a run, and return once it has planned its slide and has its blocks before it."""
    run, events = start(slide, out, told), out / "log.jsonl"
    before = events.read_text().count('"planned"') if events.is_file() else 0
    wait_until(run, lambda: events.is_file() and events.read_text().count('"planned"') > before)
    assert run.poll() is None
    return run


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "s.tiff"
    write_slide(path, SyntheticSlide(1200, 1200, mitoses=4))
    return path


@pytest.mark.slow
def test_a_run_whose_folder_is_removed_ends_and_makes_it_not_again(tmp_path: Path, slide: Path) -> None:
    out = tmp_path / "o"
    run = begin(slide, out)
    while out.exists():
        shutil.rmtree(out, ignore_errors=True)
    assert run.wait() == 2
    assert not out.exists()


@pytest.mark.slow
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path, slide: Path) -> None:
    out = tmp_path / "o"
    for number in (signal.SIGINT, signal.SIGTERM):
        run = begin(slide, out)
        run.send_signal(number)
        assert run.wait() == 128 + number
    # As Ctrl-C does in a terminal: all processes get it.
    with (tmp_path / "told").open("wb") as told:
        run = begin(slide, out, told)
        workers = workers_of(run)
        assert len(workers) == 1
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait() == 130
    assert (tmp_path / "told").read_text() == "Stopped. Run the same command again to resume.\n"
    assert not any(p.is_running() for p in workers)
    assert start(slide, out).wait() == 0
