"""Patches per second on a GPU: the forward alone, and a whole slide's analysis; and how busy the GPU is meanwhile.

    python tests/benchmarks/gpu.py SLIDE [--batch 64] [--precision bf16] [--model default] [--compile]

Busy % is what nvidia-smi reports, sampled ten times a second while blocks are analysed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch


def busy_percent(stop: threading.Event, found: list[float]) -> None:
    """Sample the GPU's utilisation until told to stop."""
    call = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        while not stop.is_set() and process.stdout:
            found.append(float(process.stdout.readline() or "nan"))
        process.kill()


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
    a = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found.")
    out = Path(tempfile.mkdtemp(prefix="gpu-"))
    settings = RunSettings(
        device="cuda", batch_size=a.batch, precision=a.precision, mpp=a.mpp, compile=a.compile
    )
    job = Job(SlideInput("slide", a.slide), out / "slide", settings, find_bundle(a.model), "")
    worker_state = WorkerState()
    worker_state.setup(None)
    blocks = worker_state.run("plan", job, (0,), "").planned.blocks
    predictor = worker_state._predict(job, settings)
    patches = np.random.default_rng(0).integers(0, 256, (a.batch, 256, 256, 3), np.uint8)
    predictor.predict(patches)
    start = time.perf_counter()
    for _ in range(30):
        predictor.predict(patches)
    alone = 30 * a.batch / (time.perf_counter() - start)
    stop, busy = threading.Event(), []
    watcher = threading.Thread(target=busy_percent, args=(stop, busy), daemon=True)
    watcher.start()
    start = time.perf_counter()
    count = sum(worker_state.run("analyse", job, (k,), "").patches for k in range(blocks))
    rate = count / (time.perf_counter() - start)
    stop.set()
    sys.stdout.write(
        f"{torch.cuda.get_device_name()}: forward alone {alone:.0f} patches/s, analysis {rate:.0f} patches/s "
        f"({rate / alone:.2f}), GPU busy {np.nanmean(busy):.0f} %\n"
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
