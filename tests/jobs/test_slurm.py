"""A batch on a real SLURM, with one job cancelled on the way, ends with the bytes of a local run."""

import hashlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from minugan_jobs.state.ledger import Ledger

from wsi_minugan.errors import OutputError
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm() -> None:
    subprocess.run([ROOT / "jobs" / "slurm-on-loopback.sh", "start"], check=True, timeout=120)


def jobs(name: str) -> list[str]:
    """Return the running jobs of a name."""
    return queued("--noheader", "--states=R", "--format=%i", f"--name={name}").split()


def queued(*options: str) -> str:
    return subprocess.run(["squeue", *options], capture_output=True, text=True, check=True).stdout


def cancel(name: str) -> None:
    """Cancel the jobs of a name, and no others: the machine may have work of its own."""
    subprocess.run(["scancel", f"--name={name}"], check=False)


@pytest.mark.slow
@pytest.mark.slurm
def test_the_end_of_a_test_cancels_only_its_own_jobs(tmp_path: Path, slurm: None) -> None:
    mine, other = (f"wsi-minugan-{uuid.uuid4().hex}" for _ in range(2))
    for name in (mine, other):
        call = ["sbatch", f"--job-name={name}", f"--output={tmp_path / name}", "--wrap=sleep 60"]
        subprocess.run(call, check=True, capture_output=True)
    try:
        wait_until(lambda: len(jobs(mine)) == len(jobs(other)) == 1)
        cancel(mine)
        wait_until(lambda: not jobs(mine))
        assert len(jobs(other)) == 1
    finally:
        cancel(mine)
        cancel(other)


def wait_until(true: Callable[[], bool], within_s: float = 300) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, queued() + subprocess.getoutput("sinfo --list-reasons")
        time.sleep(0.2)


def blocks_done(out: Path) -> int:
    try:
        ledger = Ledger(out, read_only=True)
    except OutputError:
        return 0
    try:
        return sum(ledger.blocks_done().values()) + sum(s.status == "done" for s in ledger.states())
    finally:
        ledger.close()


def digests(out: Path) -> dict[str, str]:
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in out.glob("*/**/*")
        if p.is_file()
    }


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_a_batch_on_slurm_survives_a_cancelled_job(tmp_path: Path, slurm: None, run_command) -> None:
    (tmp_path / "slides").mkdir()
    for k in range(3):
        write_slide(tmp_path / "slides" / f"s{k}.tiff", SyntheticSlide(1000, 800, seed=k, mitoses=4))
    options = {"queue": "cpu", "cores": 1, "processes": 1, "memory": "1GB", "walltime": "00:15:00"}
    options |= {"interface": "lo", "log_directory": str(tmp_path / "logs"), "local_directory": str(tmp_path)}
    name = f"wsi-minugan-{uuid.uuid4().hex}"
    options |= {"job_name": name}
    file = tmp_path / "slurm.yaml"
    file.write_text(
        yaml.safe_dump({"kind": "slurm", "workers": {"minimum": 2, "maximum": 2}, "options": options})
    )
    out = tmp_path / "o"
    code = "from minugan_cli.main import main; main()"
    call = [sys.executable, "-c", code, "run", tmp_path / "slides", "-o", out, "--block", "512"]
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(
            [*map(str, call), "--cluster", str(file)], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: run.poll() is not None or (len(jobs(name)) >= 2 and blocks_done(out) >= 2))
        cancelled = jobs(name)[0]
        subprocess.run(["scancel", cancelled], check=True)
        assert run.wait(500) == 0, (tmp_path / "output").read_text()
    finally:
        run.kill()
        cancel(name)
    done = run_command("run", tmp_path / "slides", "-o", tmp_path / "local", "--block", "512", "--quiet")
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(tmp_path / "local")
