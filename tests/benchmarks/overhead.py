"""How much of one slide's time on one worker is the network's own forward pass.

    python tests/benchmarks/overhead.py SLIDE [--block 4096] [--precision bf16]

Runs every stage in this process, as a worker does, then as many patches through the network alone,
test-time augmentation included; prints the ratio.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import run_as_worker


def seconds_a_patch(predictor: Any, patches: np.ndarray, times: int) -> float:
    """Return the mean time a patch of a batch in the network."""
    predictor.predict(patches)
    start = time.perf_counter()
    for _ in range(times):
        predictor.predict(patches)
    return (time.perf_counter() - start) / times / len(patches)


def main() -> None:
    from minugan_jobs.tasks import Job
    from minugan_jobs.worker import WorkerState

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.minugan.devices import choose_device, settle_precision
    from wsi_minugan.minugan.predictor import Predictor
    from wsi_minugan.slides.inputs import SlideInput

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--model", default="default")
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--precision", choices=["fp32", "bf16"])
    arguments = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="overhead-"))
    precision = arguments.precision or settle_precision("auto", choose_device("auto"))
    settings = RunSettings(block_px=arguments.block, mpp=arguments.mpp, precision=precision)
    job = Job(SlideInput("slide", arguments.slide), out / "slide", settings, find_bundle(arguments.model), "")
    worker_state = WorkerState()
    worker_state.setup(None)
    bundle = load_bundle(job.model)
    alone_bundle = bundle.without_test_time_augmentation()
    predictor = Predictor(alone_bundle, precision=precision, batch_size=settings.batch_size)
    patches = np.random.default_rng(0).integers(0, 256, (settings.batch_size, 256, 256, 3), np.uint8)
    predictor.predict(patches)
    used = worker_state._predict(job, settings)
    used.predict(patches)
    before = used.forwards
    spent: Counter[str] = Counter()
    count, blocks = 0, 1
    for stage in ("plan", "analyse", "merge", "write", "finish"):
        for index in range(blocks if stage in {"analyse", "write"} else 1):
            start = time.perf_counter()
            outcome = worker_state.run(stage, job, (index,), "")
            spent[stage] += time.perf_counter() - start
            count += outcome.patches
            if outcome.planned:
                blocks = outcome.planned.blocks
    card = bundle.card
    views = 2 if card.shifted_view_px else 1
    again = (used.forwards - before) * card.patches_across**2 - views * count
    first_s = seconds_a_patch(predictor, patches, max(1, count // settings.batch_size // 4))
    # Mirrored patches run by threes, as in a run on a CPU.
    small = Predictor(alone_bundle, precision=precision, batch_size=3)
    again_s = seconds_a_patch(small, patches[:3], max(1, again // 3 // 4))
    forward = count * first_s + again * again_s
    total = sum(spent.values())
    sys.stdout.write(
        f"{count} patches in {blocks} blocks; " + "  ".join(f"{k} {v:.2f} s" for k, v in spent.items()) + "\n"
    )
    sys.stdout.write(
        f"total {total:.1f} s, forward alone {forward:.1f} s ({1000 * first_s:.1f} ms a patch, "
        f"{1000 * again_s:.1f} ms for each of {again} patches with test-time augmentation)\n"
    )
    sys.stdout.write(
        f"forward's share {forward / total:.3f}; beyond it {1000 * (total - forward) / count:.2f} ms a patch\n"
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    run_as_worker(main)
