"""The same network on the same synthetic slide, patches and stride: TIAToolbox's segmentation engine, and this project with one worker.

    make .venv-tiatoolbox/.installed
    OMP_NUM_THREADS=1 .venv-tiatoolbox/bin/python tests/benchmarks/tiatoolbox.py [--side 10240]

256 px patches without overlap, everything analysed, each patch looked at once, one torch thread. TIAToolbox writes its class map as
Zarr, without polygons; this project writes all its files.
Prints wall time, time a patch beyond the network's own forward (measured alone, in this process), and the peak memory of the process
tree.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import measured, run_command

THEIRS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from wsi_minugan.interop.tiatoolbox_model import MinuganModel

if __name__ == "__main__":
    model = MinuganModel(sys.argv[3], stride_px=256)
    engine = SemanticSegmentor(model, batch_size=8, num_workers=0, device="cpu", verbose=False)
    engine.run([Path(sys.argv[1])], patch_mode=False, ioconfig=model.io_config(), save_dir=Path(sys.argv[2]), auto_get_mask=False,
               output_type="zarr")
"""


def written_without_augmentation(folder: Path) -> Path:
    """Write the bundled model without test-time augmentation, and return its folder."""
    from wsi_minugan.minugan.bundle import CARD, find_bundle, load_bundle

    shutil.copytree(find_bundle("default"), folder)
    (folder / CARD).write_text(
        load_bundle(folder).without_test_time_augmentation().card.model_dump_json(), "utf-8"
    )
    return folder


def forward_ms(model: Path) -> float:
    """Return the milliseconds a patch of the network alone."""
    from wsi_minugan.minugan.bundle import load_bundle
    from wsi_minugan.minugan.predictor import Predictor

    predictor = Predictor(load_bundle(model), "cpu")
    patches = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    predictor.predict(patches)
    start = time.perf_counter()
    for _ in range(20):
        predictor.predict(patches)
    return (time.perf_counter() - start) / 160 * 1000


def main() -> None:
    from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10240)
    a = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tiatoolbox-"))
    slide, script = folder / "slide.tiff", folder / "theirs.py"
    write_slide(slide, SyntheticSlide(a.side, a.side, mitoses=200))
    script.write_text(THEIRS)
    patches = math.ceil(a.side / 256) ** 2
    model = written_without_augmentation(folder / "model")
    theirs = [sys.executable, str(script), str(slide), str(folder / "theirs"), str(model)]
    ours = ["run", str(slide), "-o", str(folder / "ours"), "--model", str(model)]
    ours += ["--no-tissue", "--stride", "256", "--device", "cpu"]
    for name, call in (("TIAToolbox", theirs), ("wsi-minugan", run_command(ours))):
        alone = forward_ms(model)
        wall, peak = measured(call)
        sys.stdout.write(
            f"{name}: {patches} patches in {wall:.1f} s; forward alone {alone:.1f} ms a patch, beyond it "
            f"{1000 * wall / patches - alone:.1f} ms a patch, start-up included; peak memory {peak:.0f} MB\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
