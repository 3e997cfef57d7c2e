"""What a recount needs of a finished slide's folder."""

from __future__ import annotations

from pathlib import Path

from wsi_minugan.counting.hotspot import TissueFraction
from wsi_minugan.geometry import Box
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.pipeline.results import tissue_fraction_of
from wsi_minugan.segmentation import masks
from wsi_minugan.slides.tissue import CELL_PX, TissueMask


def area_of(folder: Path) -> float:
    """Return the area of the tissue analysed, mm2."""
    return read_manifest(folder).tissue_mm2


def tissue_of_results(folder: Path) -> TissueFraction:
    """Return the function that says which share of a circle was analysed, from the folder's coverage."""
    written = read_manifest(folder)
    h, w = written.analysis_height_px, written.analysis_width_px
    cells = masks.read_coarse(folder / "masks.zarr", "coverage", Box(0, 0, h, w), CELL_PX) > 0
    return tissue_fraction_of(TissueMask(cells, CELL_PX, w, h), written.analysis_mpp / written.slide.mpp)
