"""Patches per second on a GPU: the forward alone, a slide's analysis in one process, and by workers that share the GPU's process.

    python tests/benchmarks/gpu.py SLIDE [--batch 64] [--precision bf16] [--model default] [--compile] [--workers 4 8 15]

Busy % is what nvidia-smi reports, sampled ten times a second while blocks are analysed. Without a GPU, `--device cpu` tries the
script out.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import feed
import numpy as np
import torch
from common import run_as_worker

ROUNDS = 30


def busy_percent(stop: threading.Event, found: list[float]) -> None:
    """Sample the GPU's utilisation until told to stop."""
    if not shutil.which("nvidia-smi"):
        return
    call = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        while not stop.is_set() and process.stdout:
            found.append(float(process.stdout.readline() or "nan"))
        process.kill()


class Watched:
    """Samples the GPU's utilisation while its block lasts."""

    def __init__(self) -> None:
        self.busy: list[float] = []
        self._stop = threading.Event()

    def __enter__(self) -> "Watched":
        threading.Thread(target=busy_percent, args=(self._stop, self.busy), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    @property
    def percent(self) -> float:
        return float(np.nanmean(self.busy)) if self.busy else float("nan")


def by_workers(job: Any, workers: int) -> str:
    """Analyse a slide by workers that share one process's network; return the line to print."""
    from minugan_jobs.clusters.network_process import shared_network

    blocks = feed.planned(job)
    watch = Watched()
    with shared_network(job.settings, job.model) as path:
        patches, wall_s, _ = feed.analysed(job, path, workers, blocks, watch)
    return f"{workers} workers, one process with the GPU: {patches / wall_s:.0f} patches/s, GPU busy {watch.percent:.0f} %\n"


def main() -> None:
    from minugan_jobs.tasks import Job
    from minugan_jobs.worker import WorkerState

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle
    from wsi_minugan.slides.inputs import SlideInput

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--model", default="default")
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--workers", type=int, nargs="*", default=[4, 8])
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found.")
    out = Path(tempfile.mkdtemp(prefix="gpu-"))
    settings = RunSettings(
        device=a.device, batch_size=a.batch, precision=a.precision, mpp=a.mpp, compile=a.compile,
        block_px=a.block, share_network=True,
    )  # fmt: skip
    job = Job(SlideInput("slide", a.slide), out / "slide", settings, find_bundle(a.model), "")
    worker_state = WorkerState()
    worker_state.setup(None)
    blocks = worker_state.run("plan", job, (0,), "").planned.blocks
    predictor = worker_state._predict(job, settings)
    patches = np.random.default_rng(0).integers(0, 256, (a.batch, 256, 256, 3), np.uint8)
    predictor.predict(patches)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        predictor.predict(patches)
    alone = ROUNDS * a.batch / (time.perf_counter() - start)
    with Watched() as watch:
        start = time.perf_counter()
        count = sum(worker_state.run("analyse", job, (k,), "").patches for k in range(blocks))
        rate = count / (time.perf_counter() - start)
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    sys.stdout.write(
        f"{name}: forward alone {alone:.0f} patches/s, analysis in one process {rate:.0f} patches/s "
        f"({rate / alone:.2f}), GPU busy {watch.percent:.0f} %\n"
    )
    for workers in a.workers:
        sys.stdout.write(by_workers(job, workers))
    shutil.rmtree(out)


if __name__ == "__main__":
    run_as_worker(main)
