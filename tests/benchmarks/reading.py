"""Direct tile decoding against OpenSlide's read_region, per 256 px patch, interleaved in one run.

python tests/benchmarks/reading.py SLIDE
"""

import sys
import time
from pathlib import Path

import numpy as np

from wsi_minugan.geometry import Box
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.openslide_reader import OpenSlideReader


def seconds(reader, boxes) -> float:
    start = time.perf_counter()
    for box in boxes:
        reader.read_level(0, box)
    return time.perf_counter() - start


def main() -> None:
    path = Path(sys.argv[1])
    info = open_slide(path).info
    rows = range(0, min(info.height_px, 6000) - 256, 256)
    strips = [Box(y, 0, 256, min(info.width_px, 6000)) for y in rows]
    patches = [Box(y, x, 256, 256) for y in rows for x in range(0, min(info.width_px, 6000) - 255, 256)]
    times: dict[str, list[float]] = {
        "direct, strips": [],
        "direct, patch by patch": [],
        "OpenSlide, patch by patch": [],
    }
    for _ in range(3):
        times["direct, strips"].append(seconds(open_slide(path), strips))
        times["direct, patch by patch"].append(seconds(open_slide(path), patches))
        times["OpenSlide, patch by patch"].append(seconds(OpenSlideReader(path), patches))
    for name, values in times.items():
        sys.stdout.write(f"{name}: {1000 * np.median(values) / len(patches):.3f} ms a patch\n")


if __name__ == "__main__":
    main()
