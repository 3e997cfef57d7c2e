"""Time and peak memory of each export of many nuclei: a finished slide's nuclei, laid side by side until there are enough.

python tests/benchmarks/exports.py OUT/SLIDE [--nuclei 100000 1000000] [--formats csv parquet] [--folder FOLDER]
"""

import argparse
import itertools
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from common import measured

from wsi_minugan.outputs.exports.files import FORMATS
from wsi_minugan.outputs.exports.objects import open_slide_folder
from wsi_minugan.outputs.nuclei import write_nuclei


def grown(source: Path, folder: Path, nuclei: int) -> Path:
    """Copy a finished slide with its nuclei repeated to the right and below until there are so many."""
    folder.mkdir(parents=True)
    for name in ("mitoses.geojson", "manifest.json"):
        shutil.copy(source / name, folder / name)
    shutil.copytree(source / "masks.zarr", folder / "masks.zarr")
    slide = open_slide_folder(source)
    write_nuclei(folder / "nuclei.parquet", repeated(slide.nuclei, nuclei), slide.slide_id, slide.mpp)
    return folder


def repeated(path: Path, nuclei: int) -> Iterator[dict[str, Any]]:
    """Yield a file's nuclei again and again, each time moved by its extent, in rows of 30."""
    table = pq.read_table(path)
    shapes = shapely.from_wkb(table["geometry"].to_numpy())
    xy = np.stack([table["centroid_x_px"].to_numpy(), table["centroid_y_px"].to_numpy()], axis=-1)
    area = table["area_um2"].to_numpy()
    extent = np.ceil(shapely.total_bounds(shapes)[2:])
    done = 0
    for k in itertools.count():
        n = min(len(shapes), nuclei - done)
        if n <= 0:
            return
        by = extent * (k % 30, k // 30)
        yield {
            "nucleus": np.arange(done + 1, done + n + 1, dtype=np.uint32),
            "centroid_x_px": xy[:n, 0] + by[0],
            "centroid_y_px": xy[:n, 1] + by[1],
            "area_um2": area[:n],
            "geometry": shapely.to_wkb(shapely.transform(shapes[:n], lambda c, by=by: c + by)),
        }
        done += n


def main() -> None:
    """Export each number of nuclei in each format, in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path, help="folder of a finished slide")
    parser.add_argument("--nuclei", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--folder", type=Path, help="where to write; 4 GB for a million nuclei")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exports-", dir=arguments.folder) as folder:
        for n in arguments.nuclei:
            slide = grown(arguments.slide, Path(folder) / str(n) / "slide", n)
            for kind in arguments.formats:
                export(slide, kind, Path(folder) / "export", n)


def export(slide: Path, kind: str, folder: Path, nuclei: int) -> None:
    """Export a slide with the command, print seconds, memory and size, and delete the file again."""
    code = "from minugan_cli.main import main; main()"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, peak = measured(
        [sys.executable, "-c", code, "export", str(slide), "--to", kind, "-o", str(folder)]
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
    times = f"{work:.0f} s of processor time, {seconds:.0f} s on the clock"
    sys.stdout.write(f"{nuclei} nuclei, {kind}: {times}, peak {peak:.0f} MB, file {size:.0f} MB\n")
    sys.stdout.flush()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
