"""Does the patch grid show? The same tissue shifted in x and y, class maps and mitoses aligned and compared.

python tests/benchmarks/shift.py SLIDE [--side 5000] [--mpp 0.25] [--model default] [--shift 37]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tifffile
import zarr
from common import run_as_worker


def classes_of(path: Path, out: Path, mpp: float, model: str) -> np.ndarray:
    from minugan_jobs.tasks import Job
    from minugan_jobs.worker import WorkerState

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle
    from wsi_minugan.slides.inputs import SlideInput

    worker_state, blocks = WorkerState(), 1
    worker_state.setup(None)
    job = Job(SlideInput("s", path, mpp), out, RunSettings(tissue=False), find_bundle(model), "")
    for stage in ("plan", "analyse", "merge", "write"):
        for index in range(blocks if stage in {"analyse", "write"} else 1):
            planned = worker_state.run(stage, job, (index,), "").planned
            blocks = planned.blocks if planned else blocks
    return np.asarray(zarr.open_array(out / "masks.zarr" / "labels" / "classes" / "0", mode="r"))


def found_on_both(a: np.ndarray, b: np.ndarray, radius_px: float) -> tuple[int, int, int]:
    """Return the mitoses of each class map, and the pairs that lie within a distance of each other."""
    from minugan_training.evaluation.matching import match

    places = [cv2.connectedComponentsWithStats((m == 2).astype(np.uint8))[3][1:] for m in (a, b)]
    return len(places[0]), len(places[1]), len(match(*places, radius_px).pairs)


def main() -> None:
    from minugan_training.evaluation.metrics import dice

    from wsi_minugan.geometry import Box
    from wsi_minugan.slides.opening import open_slide

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--side", type=int, default=5000)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--model", default="default")
    parser.add_argument("--shift", type=int, default=37, help="px, in x and y")
    arguments = parser.parse_args()
    reader = open_slide(arguments.slide)
    side_y, side_x = (min(arguments.side, v) for v in (reader.info.height_px, reader.info.width_px))
    folder = Path(tempfile.mkdtemp(prefix="shift-"))
    maps = []
    for shift in (0, arguments.shift):
        pixels = reader.read_level(0, Box(-shift, -shift, side_y + shift, side_x + shift))
        path = folder / f"{shift}.tif"
        tifffile.imwrite(
            path, pixels, photometric="rgb", tile=(256, 256), compression="deflate", metadata=None
        )
        found = classes_of(path, folder / str(shift), arguments.mpp, arguments.model)
        maps.append(found[shift:, shift:])
    a, b = maps
    for name, value in (("nucleus", 1), ("mitosis", 2)):
        line = f"{name} Dice {dice(a == value, b == value):.4f} ({(a == value).sum()} and {(b == value).sum()} px)\n"
        sys.stdout.write(line)
    here, there, both = found_on_both(a, b, 7.5 / arguments.mpp)
    share = 2 * both / max(1, here + there)
    sys.stdout.write(f"mitoses on both grids {share:.4f} ({both} of {here} and {there})\n")


if __name__ == "__main__":
    run_as_worker(main)
