"""What one GPU's worker could be fed on this machine, if the network took no time.

    OMP_NUM_THREADS=1 python tests/benchmarks/feed.py [SLIDE] [--block 4096] [--repeats 3] [--scores FILE]

Runs every stage in this process with a predictor that hands out scores made before; without SLIDE, over a drawn one. The time that
the predictor takes, which is that of finding the scores again, is taken off. Prints for each stage the processor time a patch, and
how many patches a second the stage passes on (processor time of one core; the least of the repeats). Only "analyse" runs in the
process that holds the GPU: "merge", "write" and "finish" may run on workers without one.
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
from block import Replay, prepared
from common import run_as_worker

STAGES = ("analyse", "merge", "write", "finish")


class NoTime(Replay):
    """Hands out scores made before, and adds up the time that this takes."""

    wall_s = 0.0
    cpu_s = 0.0
    asked = 0

    def predict(self, patches: np.ndarray, stain: Any = None) -> np.ndarray:
        wall, cpu = time.perf_counter(), time.thread_time()
        out = super().predict(patches, stain)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.thread_time() - cpu
        self.asked += len(patches)
        return out


def one_pass(job: Any, predictor: NoTime) -> tuple[Counter[str], float, int]:
    """Run all stages of a slide; return each one's processor time, analysis's wall time, and the number of patches."""
    from minugan_jobs.worker import WorkerState

    state = WorkerState()
    state.setup(None)
    state._predict = lambda *_: predictor
    blocks = state.run("plan", job, (0,), "").planned.blocks
    cpu: Counter[str] = Counter()
    predictor.wall_s = predictor.cpu_s = predictor.asked = 0
    wall_s = 0.0
    for stage in STAGES:
        for index in range(blocks if stage in {"analyse", "write"} else 1):
            start, begun = time.process_time(), time.perf_counter()
            state.run(stage, job, (index,), "")
            cpu[stage] += time.process_time() - start
            wall_s += (time.perf_counter() - begun) * (stage == "analyse")
    cpu["analyse"] -= predictor.cpu_s
    return cpu, wall_s - predictor.wall_s, predictor.asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="feed-"))
    job = prepared(arguments, folder)
    predictor = NoTime(job.model, arguments.scores)
    one_pass(job, predictor)  # makes the scores
    if arguments.scores and not arguments.scores.is_file():
        predictor.save(arguments.scores)
    passes = [one_pass(job, predictor) for _ in range(arguments.repeats)]
    patches = passes[0][2]
    sys.stdout.write(f"{patches} patches\n")
    for stage in STAGES:
        seconds = min(cpu[stage] for cpu, _, _ in passes)
        sys.stdout.write(
            f"{stage:8} {1000 * seconds / patches:6.3f} ms of a core a patch: {patches / seconds:7.0f} patches/s\n"
        )
    total = min(sum(cpu.values()) for cpu, _, _ in passes)
    sys.stdout.write(f"{'all':8} {1000 * total / patches:6.3f} ms of a core a patch\n")
    wall_s = min(wall for _, wall, _ in passes)
    sys.stdout.write(
        f"One GPU's worker could be fed {patches / wall_s:.0f} patches/s by the clock on this machine.\n"
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    run_as_worker(main)
