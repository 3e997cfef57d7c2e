"""How much of one slide's time on one worker is the network's own forward pass.

    OMP_NUM_THREADS=1 python tests/benchmarks/overhead.py SLIDE [--block 4096]

Runs every stage in this process, as a worker does, then as many patches through the network alone, second looks included; prints the ratio.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from minugan_jobs.cluster import MALLOC


def main() -> None:
    from minugan_jobs.work import Bench, Job

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.minugan.predictor import Predictor, choose_device, settle_precision
    from wsi_minugan.slides.inputs import SlideInput

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--model", default="default")
    parser.add_argument("--mpp", type=float)
    arguments = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="overhead-"))
    precision = settle_precision("auto", choose_device("auto"))
    settings = RunSettings(block_px=arguments.block, mpp=arguments.mpp, precision=precision)
    job = Job(SlideInput("slide", arguments.slide), out / "slide", settings, find_bundle(arguments.model), "")
    bench = Bench()
    bench.setup(None)
    bundle = load_bundle(job.model)
    alone_bundle = replace(bundle, card=bundle.card.model_copy(update={"second_look": None}))
    predictor = Predictor(alone_bundle, batch_size=settings.batch_size)
    patches = np.random.default_rng(0).integers(0, 256, (settings.batch_size, 256, 256, 3), np.uint8)
    predictor.predict(patches)
    used = bench._predict(job, settings)
    used.predict(patches)
    before = used.forwards
    spent: Counter[str] = Counter()
    count, blocks = 0, 1
    for stage in ("plan", "analyse", "merge", "write", "finish"):
        for index in range(blocks if stage in {"analyse", "write"} else 1):
            start = time.perf_counter()
            outcome = bench.run(stage, job, index, "")
            spent[stage] += time.perf_counter() - start
            count += outcome.patches
            if outcome.planned:
                blocks = outcome.planned.blocks
    alone = []
    forwards = used.forwards - before
    for _ in range(max(1, count // settings.batch_size // 4)):
        start = time.perf_counter()
        predictor.predict(patches)
        alone.append(time.perf_counter() - start)
    forward = float(np.mean(alone)) / settings.batch_size * forwards
    total = sum(spent.values())
    sys.stdout.write(
        f"{count} patches in {blocks} blocks; " + "  ".join(f"{k} {v:.2f} s" for k, v in spent.items()) + "\n"
    )
    sys.stdout.write(
        f"total {total:.1f} s, forward alone {forward:.1f} s ({1000 * forward / forwards:.1f} ms for each of {forwards})\n"
    )
    sys.stdout.write(
        f"forward's share {forward / total:.3f}; beyond it {1000 * (total - forward) / count:.2f} ms a patch\n"
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    if any(os.environ.get(k) != v for k, v in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
    main()
