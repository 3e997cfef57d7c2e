"""Patches per second on a GPU: the forward alone, a slide's analysis in one process, and by workers that share the GPU's process.

    python tests/benchmarks/gpu.py SLIDE [--batch 64] [--precision bf16] [--model default] [--compile] [--workers 4 8 15]

Busy % is what nvidia-smi reports, sampled ten times a second while blocks are analysed. Without a GPU, `--device cpu` tries the
script out.
"""

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import feed
import numpy as np
import torch

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


@contextmanager
def watched() -> Iterator[list[float]]:
    """Yield a list that gets what the GPU's utilisation is in the block."""
    stop, busy = threading.Event(), []
    watcher = threading.Thread(target=busy_percent, args=(stop, busy), daemon=True)
    watcher.start()
    yield busy
    stop.set()
    with suppress(RuntimeError):
        watcher.join(1)


def by_workers(job: Any, workers: int) -> str:
    """Analyse a slide by workers that share one process's network; return the line to print."""
    from minugan_jobs.clusters.network_process import shared_network

    blocks = feed.planned(job)
    context = multiprocessing.get_context("spawn")
    with (
        shared_network(job.settings, job.model) as path,
        context.Manager() as manager,
        context.Pool(workers) as pool,
    ):
        ready = manager.Barrier(workers + 1)
        shares = [list(range(k, blocks, workers)) for k in range(workers)]
        done = [pool.apply_async(feed.analyse, (job, share, path, ready)) for share in shares]
        ready.wait()
        begun = time.perf_counter()
        with watched() as busy:
            patches = sum(d.get()[1] for d in done)
        rate = patches / (time.perf_counter() - begun)
    return (
        f"{workers} workers, one process with the GPU: {rate:.0f} patches/s, GPU busy {mean_of(busy):.0f} %\n"
    )


def mean_of(busy: list[float]) -> float:
    return float(np.nanmean(busy)) if busy else float("nan")


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
    with watched() as busy:
        start = time.perf_counter()
        count = sum(worker_state.run("analyse", job, (k,), "").patches for k in range(blocks))
        rate = count / (time.perf_counter() - start)
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    sys.stdout.write(
        f"{name}: forward alone {alone:.0f} patches/s, analysis in one process {rate:.0f} patches/s "
        f"({rate / alone:.2f}), GPU busy {mean_of(busy):.0f} %\n"
    )
    for workers in a.workers:
        sys.stdout.write(by_workers(job, workers))
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
