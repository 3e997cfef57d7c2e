"""A batch killed at any moment goes on, and ends with the bytes of an undisturbed one."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import psutil
import pytest

from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

KILLS = 5
"""Two of them end the client, two a worker and then all, one all at once; tests/benchmarks/chaos.py goes on to a hundred."""


def start(slides: Path, out: Path, told: int | IO[bytes] = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    code = "from minugan_cli.main import main; main()"
    call = [
        sys.executable,
        "-c",
        code,
        "run",
        str(slides),
        "-o",
        str(out),
        "--workers",
        "2",
        "--block",
        "512",
        "--quiet",
    ]
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
    """Write six slides, of which three cannot be done."""
    folder.mkdir()
    for k in range(3):
        write_slide(folder / f"s{k}.tiff", SyntheticSlide(1100, 900, seed=k, mitoses=4))
    data = (folder / "s0.tiff").read_bytes()
    (folder / "truncated.tiff").write_bytes(data[: len(data) // 2])
    write_slide(folder / "blank.tiff", SyntheticSlide(800, 800, tissue_fraction=0.0))
    write_slide(folder / "no mpp.tiff", SyntheticSlide(600, 600, mpp=0.0001))


def _works(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def kill_once(slides: Path, out: Path, turn: int, rng: random.Random) -> bool:
    """Start a run and kill the client with its scheduler, a worker and then all, or all, in turn; False if it ended before."""
    run = start(slides, out)
    time.sleep(rng.uniform(3.0, 9.0))
    if run.poll() is not None:
        return False
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if _works(p)]
    if turn % 3 == 0 or not workers:
        run.kill()  # the workers end by themselves
        run.wait()
        return True
    if turn % 3 == 1:
        rng.choice(workers).kill()
        time.sleep(rng.uniform(1.0, 4.0))
    end_all(run)
    return True


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_batch_killed_at_random_moments_ends_byte_for_byte_the_same(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    write_batch(slides)
    undisturbed = start(slides, tmp_path / "a")
    assert undisturbed.wait(240) == 1
    rng = random.Random(11)
    for turn in range(KILLS):
        if not kill_once(slides, tmp_path / "b", turn, rng):
            break
    assert start(slides, tmp_path / "b").wait(240) == 1
    expected = digests(tmp_path / "a")
    assert any(name.endswith("manifest.json") for name in expected)
    assert digests(tmp_path / "b") == expected


def wait_for_the_plan(out: Path) -> None:
    """Return once a run has planned its slide and has its blocks before it."""
    until = time.monotonic() + 60
    while not ((out / "log.jsonl").is_file() and '"planned"' in (out / "log.jsonl").read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_whose_folder_is_removed_ends_and_makes_it_not_again(tmp_path: Path) -> None:
    write_slide(tmp_path / "s.tiff", SyntheticSlide(1600, 1600, mitoses=4))
    out = tmp_path / "o"
    run = start(tmp_path / "s.tiff", out)
    wait_for_the_plan(out)
    until = time.monotonic() + 30
    while out.exists():
        assert time.monotonic() < until
        shutil.rmtree(out, ignore_errors=True)
    assert run.wait(60) == 2
    assert not out.exists()
    assert start(tmp_path / "s.tiff", out).wait(200) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    write_slide(tmp_path / "s.tiff", SyntheticSlide(1600, 1600, mitoses=4))
    run = start(tmp_path / "s.tiff", tmp_path / "o")
    wait_for_the_plan(tmp_path / "o")
    run.send_signal(number)
    assert run.wait(60) == 128 + number
    assert start(tmp_path / "s.tiff", tmp_path / "o").wait(200) == 0


@pytest.mark.slow
def test_ctrl_c_to_all_processes_of_a_terminal_says_one_sentence(tmp_path: Path) -> None:
    write_slide(tmp_path / "s.tiff", SyntheticSlide(1600, 1600, mitoses=4))
    with (tmp_path / "told").open("wb") as told:
        run = start(tmp_path / "s.tiff", tmp_path / "o", told)
        wait_for_the_plan(tmp_path / "o")
        workers = [p for p in psutil.Process(run.pid).children(recursive=True) if _works(p)]
        assert len(workers) == 2
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == 130
    assert (tmp_path / "told").read_text() == "Stopped. Run the same command again to resume.\n"
    assert not any(p.is_running() for p in workers)
