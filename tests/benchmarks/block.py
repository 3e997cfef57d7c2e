"""What a block costs beyond the network's forward pass, step by step.

    python tests/benchmarks/block.py [SLIDE] [--block 4096] [--repeats 3] [--scores FILE] [--out FOLDER]

Runs every stage in this process, as a worker does; without SLIDE, over a drawn one. The network's scores are made once and kept,
in FILE if one is named, so that a second run, or another checkout's, needs no network. Prints the processor time of each step
itself (less the steps within it; Zarr's thread included) in ms a block and us a patch: for each step the least of the repeats.
With --out, the slide's results stay in FOLDER, to be compared with another checkout's.
"""

import argparse
import functools
import hashlib
import importlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import run_as_worker

STEPS = (
    "wsi_minugan.pipeline.blocks.patches:_read_strip",
    "wsi_minugan.pipeline.stages:coverage_of",
    "wsi_minugan.pipeline.stages:run_length_mask",
    "wsi_minugan.pipeline.stages:measure_objects",
    "wsi_minugan.pipeline.stages:outlines",
    "wsi_minugan.pipeline.stages:split_inside",
    "wsi_minugan.pipeline.stages:split_crossing",
    "wsi_minugan.pipeline.stages:numbered_objects",
    "wsi_minugan.segmentation.blend:Blender.add",
    "wsi_minugan.segmentation.blend:Blender.scores",
    "wsi_minugan.segmentation.classes:class_map",
    "wsi_minugan.segmentation.masks.writing:write_block",
    "wsi_minugan.segmentation.masks.writing:build_pyramid",
    "wsi_minugan.pipeline.scratch:Scratch.save_block",
    "wsi_minugan.pipeline.blocks.patch_scores:PatchScores.save",
    "wsi_minugan.pipeline.blocks.patch_scores:PatchScores.load",
    "wsi_minugan.pipeline.scratch:Scratch.load_numbered",
    "wsi_minugan.pipeline.scratch:Scratch.load_run_lengths",
    "wsi_minugan.segmentation.run_lengths:RunLengthMask.paint",
    "wsi_minugan.pipeline.scratch:Scratch.load_shapes",
    "wsi_minugan.pipeline.results:_write_mitoses",
    "wsi_minugan.pipeline.results:write_nuclei",
    "wsi_minugan.pipeline.results:_draw",
)


@dataclass
class Clock:
    """Sums the processor time of steps, each less the steps within it."""

    spent: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    _running: list[list[float]] = field(default_factory=list)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._running.append([0.0])
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.process_time() - start
                self.spent[name] += took - self._running.pop()[0]
                self.calls[name] += 1
                if self._running:
                    self._running[-1][0] += took

        return call

    def watch(self, step: str) -> None:
        """Time a function from now on; one that this version does not have is passed over."""
        module, _, path = step.partition(":")
        *holders, name = path.split(".")
        try:
            holder = functools.reduce(getattr, holders, importlib.import_module(module))
        except ModuleNotFoundError:
            return
        if hasattr(holder, name):
            setattr(holder, name, self.timed(path, getattr(holder, name)))


class Replay:
    """Predicts each patch once, and afterwards from memory."""

    def __init__(self, model: Path, known: Path | None) -> None:
        self.batch_size, self.device, self._model, self._network = 8, "cpu", model, None
        self._scores: dict[str, Any] = {}
        if known and known.is_file():
            with np.load(known) as data:
                self._scores = dict(data)

    def predict(self, patches: np.ndarray, stain: Any = None) -> np.ndarray:
        """Score patches; their stain is never moved, as in a run without `--stain`."""
        keys = [hashlib.blake2b(p.tobytes(), digest_size=16).hexdigest() for p in patches]
        if any(k not in self._scores for k in keys):
            self._scores |= dict(zip(keys, self._forward(patches), strict=True))
        return np.stack([self._scores[k] for k in keys])

    def _forward(self, patches: np.ndarray) -> np.ndarray:
        from wsi_minugan.minugan.bundle import load_bundle
        from wsi_minugan.minugan.predictor import Predictor

        self._network = self._network or Predictor(load_bundle(self._model), batch_size=self.batch_size)
        return self._network.predict(patches)

    def save(self, path: Path) -> None:
        np.savez(path, **self._scores)


def one_pass(job: Any, replay: Replay, clock: Clock) -> int:
    """Run every stage of a slide and return its number of blocks."""
    from minugan_jobs.worker import WorkerState

    worker_state = WorkerState()
    worker_state.setup(None)
    worker_state._predict = lambda *_: replay
    blocks = 1
    for stage in ("plan", "analyse", "merge", "write", "finish"):
        for index in range(blocks if stage in {"analyse", "write"} else 1):
            run = worker_state.run if stage == "plan" else clock.timed(f"rest of {stage}", worker_state.run)
            outcome = run(stage, job, (index,), "")
            if outcome.planned:
                blocks = outcome.planned.blocks
    return blocks


def prepared(arguments: argparse.Namespace, folder: Path) -> Any:
    """Return the job: the given slide, or a drawn one as large as a block."""
    from minugan_jobs.tasks import Job

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle
    from wsi_minugan.slides.inputs import SlideInput
    from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

    slide = arguments.slide
    if slide is None:
        slide = folder / "drawn.tiff"
        write_slide(slide, SyntheticSlide(arguments.block, arguments.block, seed=1, mitoses=40))
    settings = RunSettings(block_px=arguments.block)
    return Job(SlideInput("slide", slide), folder / "slide", settings, find_bundle("default"), "")


def report(spent: dict[str, float], calls: dict[str, int], blocks: int) -> None:
    patches = calls["Blender.add"]
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        sys.stdout.write(
            f"{name:24} {1000 * seconds / blocks:8.1f} ms a block {1e6 * seconds / patches:8.0f} us a patch"
            f" {calls[name] / blocks:8.1f} calls\n"
        )
    total = sum(spent.values())
    sys.stdout.write(
        f"{'beyond the forward':24} {1000 * total / blocks:8.1f} ms a block {1e6 * total / patches:8.0f} us a patch;"
        f" {patches} patches blended, {blocks} blocks\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--block", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    clock = Clock()
    for step in STEPS:
        clock.watch(step)
    Replay.predict = clock.timed("forward", Replay.predict)
    folder = Path(tempfile.mkdtemp(prefix="block-"))
    job = prepared(arguments, folder)
    replay = Replay(job.model, arguments.scores)
    one_pass(job, replay, Clock())
    if arguments.scores and not arguments.scores.is_file():
        replay.save(arguments.scores)
    passes = []
    for _ in range(arguments.repeats):
        clock.spent.clear()
        clock.calls.clear()
        blocks = one_pass(job, replay, clock)
        passes.append(Counter({k: v for k, v in clock.spent.items() if k != "forward"}))
    report({k: min(p[k] for p in passes) for k in passes[0]}, clock.calls, blocks)
    if arguments.out:
        shutil.move(job.folder, arguments.out)
    shutil.rmtree(folder)


if __name__ == "__main__":
    run_as_worker(main)
