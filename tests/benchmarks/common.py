"""What several benchmarks share."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from minugan_jobs.clusters.cluster import worker_environment

from wsi_minugan.config import RunSettings


def run_as_worker(main: Callable[[], None]) -> None:
    """Run a script's `main` with a worker's memory and threads, which only a new process can have."""
    environment = worker_environment(RunSettings())
    if any(os.environ.get(k) != v for k, v in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | environment)
    main()


def run_command(arguments: list[str], workers: int = 1) -> list[str]:
    """Return the call of `wsi-minugan` with these arguments in this environment."""
    code = "from minugan_cli.main import main; main()"
    return [sys.executable, "-c", code, *arguments, "--workers", str(workers), "--quiet"]


def synthetic_slide(folder: Path, side: int, tissue: float) -> Path:
    """Draw a slide; one of 60,000 px takes minutes."""
    from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

    path = folder / f"{side}.tiff"
    write_slide(path, SyntheticSlide(side, side, tissue_fraction=tissue, mitoses=50))
    return path


def measured(call: list[str]) -> tuple[float, float]:
    """Run a command; return its wall time (s) and the peak of its process tree's summed RSS (MB).

    Raises
    ------
    SystemExit
        If it fails, with the end of what it said.
    """
    start, peak = time.monotonic(), 0.0
    with tempfile.TemporaryFile() as log:
        run = subprocess.Popen(call, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while run.poll() is None:
            peak = max(peak, _tree_mb(run.pid))
            time.sleep(0.1)
        if run.returncode:
            log.seek(0)
            raise SystemExit(log.read().decode()[-3000:])
    return time.monotonic() - start, peak


def _tree_mb(pid: int) -> float:
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6
