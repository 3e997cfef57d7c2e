"""The network's forward pass, by arithmetic: time a patch on one thread, and whether the class map stays the same.

    python tests/benchmarks/forward.py SLIDE [--patches 32] [--model default]

"as published" is the same architecture with instance norms, eager, fp32. Times are of one pass. Dice is that of the class map against
fp32's, test-time augmentation included, on patches of the slide's tissue.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import run_as_worker

BATCH = 8


def ms_a_patch(run: Callable[[], object], patches: int) -> float:
    """Return the least of five runs' time, in ms a patch, after one to warm up."""
    run()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1000 * min(times) / patches


def patches_of(slide: Path, count: int) -> np.ndarray:
    """Return patches of a slide's tissue, spread over it, ``(n, 256, 256, 3)``."""
    from wsi_minugan.config import RunSettings
    from wsi_minugan.pipeline.plan import open_reader, plan_slide
    from wsi_minugan.slides.analysis import AnalysisView
    from wsi_minugan.slides.inputs import SlideInput

    settings = RunSettings()
    reader = open_reader(slide, settings)
    plan = plan_slide(SlideInput("slide", slide), reader, settings, 0.25)
    places = plan.patches_of(plan.frame.box)
    view = AnalysisView(reader, plan.frame)
    chosen = np.linspace(0, len(places) - 1, count).astype(int)
    return np.stack([view.read(plan.grid.box(*places[k])) for k in chosen])


def main() -> None:
    import torch
    from minugan_training.evaluation.metrics import dice

    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.minugan.generator import Generator
    from wsi_minugan.minugan.predictor import Predictor
    from wsi_minugan.segmentation.classes import Thresholds, class_map

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--model", default="default")
    a = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle(find_bundle(a.model))
    cut = Thresholds(*(getattr(bundle.card.thresholds, n) for n in ("mitosis", "nucleus", "boundary")))
    patches = patches_of(a.slide, a.patches)
    published, x = Generator(bundle.card.architecture.ngf).eval(), torch.rand(BATCH, 3, 256, 256)
    with torch.inference_mode():
        before = ms_a_patch(lambda: published(x), BATCH)
    sys.stdout.write(f"as published: {before:.1f} ms a patch\n")
    maps = {}
    for precision in ("fp32", "bf16"):
        once = Predictor(bundle.without_test_time_augmentation(), "cpu", precision, BATCH)
        took = ms_a_patch(lambda p=once: p.predict(patches[:BATCH]), BATCH)
        predictor = Predictor(bundle, "cpu", precision, BATCH)
        maps[precision] = np.stack([class_map(s, cut) for s in predictor.predict(patches)])
        agree = [dice(maps[precision] == c, maps["fp32"] == c) for c in (1, 2)]
        sys.stdout.write(
            f"{precision}: {took:.1f} ms a patch, {before / took:.2f} times as fast; "
            f"Dice of nuclei {agree[0]:.4f}, of mitoses {agree[1]:.4f}\n"
        )


if __name__ == "__main__":
    run_as_worker(main)
