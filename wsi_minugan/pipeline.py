"""One slide, start to finish: plan, infer block by block, label, write labels, finish.

Each stage is a function of small picklable values, so that it can run anywhere. Pixels never travel: they
are read, and masks are written, where a stage runs. What a block yields depends on the slide, the settings and the model
alone, never on how blocks are cut or in which order they run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import PATCH_PX, RunSettings
from wsi_minugan.errors import NoTissueError
from wsi_minugan.geometry import UM2_PER_MM2, Box, Frame, analysis_frame, blocks_of
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.segmentation import classes, masks
from wsi_minugan.segmentation.blend import Blender
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.reader import SlideInfo, SlideReader, resolve_mpp
from wsi_minugan.slides.tissue import TissueMask, everything, find_tissue

UPSAMPLED_BELOW = 0.9


@dataclass(frozen=True)
class SlidePlan:
    """What is to be done on one slide.

    Attributes
    ----------
    slide : SlideInput
        Identifier, path and the user's mpp.
    info : SlideInfo
        The slide as its reader sees it.
    frame : Frame
        Analysis frame.
    mpp_source : str
        Where the resolution came from.
    tissue : TissueMask
        What is analysed.
    blocks : tuple of Box
        Blocks that hold tissue, analysis px, in raster order.
    block_px : int
        Side of a whole block.
    stride_px : int
        Distance of patches, analysis px.
    """

    slide: SlideInput
    info: SlideInfo
    frame: Frame
    mpp_source: str
    tissue: TissueMask
    blocks: tuple[Box, ...]
    block_px: int
    stride_px: int

    @property
    def grid(self) -> PatchGrid:
        """The slide's patches; independent of its blocks."""
        return PatchGrid(self.frame.height_px, self.frame.width_px, self.stride_px)

    @property
    def tissue_mm2(self) -> float:
        """Area that is analysed."""
        return self.tissue.area_mm2(self.frame.mpp)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that belong into manifest and report."""
        if self.frame.scale < UPSAMPLED_BELOW:
            return (
                f"The slide has {self.frame.level0_mpp:.3f} um/px and was enlarged to {self.frame.mpp:.3f} um/px: "
                "fine detail that the network was trained on is missing, so counts are less certain.",
            )
        return ()

    def patches_of(self, box: Box) -> list[tuple[int, int]]:
        """Return the patches that reach `box` and see tissue; the second does not depend on the box."""
        grid = self.grid
        return [ij for ij in grid.patches_for(box) if self.tissue.any_in(grid.box(*ij))]


def plan_slide(slide: SlideInput, reader: SlideReader, settings: RunSettings, model_mpp: float) -> SlidePlan:
    """Find a slide's frame, tissue and blocks.

    Raises
    ------
    MppError
        If no plausible resolution is known.
    NoTissueError
        If there is nothing to analyse.
    """
    info = reader.info
    mpp, source = resolve_mpp(info, slide.mpp or settings.mpp)
    frame = analysis_frame(info.width_px, info.height_px, mpp, model_mpp)
    tissue = find_tissue(reader, frame) if settings.tissue else everything(frame)
    blocks = tuple(b for b in blocks_of(frame, settings.block_px) if tissue.any_in(b))
    if not blocks:
        raise NoTissueError(
            f"No tissue was found in {slide.path}. If the slide does hold tissue, analyse all of it with --no-tissue."
        )
    return SlidePlan(slide, info, frame, source, tissue, blocks, settings.block_px, settings.stride_px)


def thresholds(bundle: Bundle, settings: RunSettings) -> classes.Thresholds:
    """Return the model card's thresholds, with the user's in their place."""
    card = bundle.card.thresholds
    return classes.Thresholds(
        mitosis=settings.mitosis_threshold or card.mitosis, nucleus=card.nucleus, boundary=card.boundary
    )


@dataclass(frozen=True)
class BlockReport:
    """What one block took.

    Attributes
    ----------
    patches : int
        Patches that went through the network.
    tissue_mm2 : float
        Area analysed.
    forward_s, seconds : float
        Time in the network, and in all.
    """

    patches: int
    tissue_mm2: float
    forward_s: float
    seconds: float


def infer_block(
    plan: SlidePlan, box: Box, reader: SlideReader, predictor: Predictor, cut: classes.Thresholds, store: Path
) -> BlockReport:
    """Run the network over a block and write its classes, mitosis scores and coverage."""
    start = time.perf_counter()
    outer = box.grown(classes.REACH_PX)
    wanted = plan.patches_of(outer)
    blender = Blender(outer, plan.grid)
    forward_s = _predict_into(blender, plan, wanted, AnalysisView(reader, plan.frame), predictor)
    scores = blender.scores()
    inner = box.slices_within(outer)
    coverage = coverage_of(plan.tissue, box)
    masks.write_block(store, "classes", box, classes.class_map(scores, cut)[inner] * coverage)
    masks.write_block(store, "mitosis_score", box, np.ascontiguousarray(scores[1][inner]) * coverage)
    masks.write_block(store, "coverage", box, coverage)
    area = float(np.count_nonzero(coverage)) * plan.frame.mpp**2 / UM2_PER_MM2
    return BlockReport(len(wanted), area, forward_s, time.perf_counter() - start)


def _predict_into(
    blender: Blender,
    plan: SlidePlan,
    wanted: list[tuple[int, int]],
    view: AnalysisView,
    predictor: Predictor,
) -> float:
    """Predict the wanted patches, batch by batch, and return the seconds spent in the network."""
    forward_s = 0.0
    pending: list[tuple[tuple[int, int], NDArray[np.uint8]]] = []

    def flush() -> float:
        begin = time.perf_counter()
        scores = predictor.predict(np.stack([p for _, p in pending]))
        spent = time.perf_counter() - begin
        for (ij, _), patch_scores in zip(pending, scores, strict=True):
            blender.add(*ij, patch_scores)
        pending.clear()
        return spent

    for row in _rows(wanted):
        strip_box, strip = _read_strip(plan.grid, row, view)
        for ij in row:
            pending.append((ij, strip[plan.grid.box(*ij).slices_within(strip_box)]))
            if len(pending) == predictor.batch_size:
                forward_s += flush()
    return forward_s + (flush() if pending else 0.0)


def _rows(patches: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group patches into runs of neighbours in one row, so that a run is read at once."""
    runs: list[list[tuple[int, int]]] = []
    for ij in sorted(patches):
        if runs and runs[-1][-1] == (ij[0], ij[1] - 1):
            runs[-1].append(ij)
        else:
            runs.append([ij])
    return runs


def _read_strip(
    grid: PatchGrid, row: list[tuple[int, int]], view: AnalysisView
) -> tuple[Box, NDArray[np.uint8]]:
    first, last = grid.box(*row[0]), grid.box(*row[-1])
    box = Box(first.y_px, first.x_px, PATCH_PX, last.x_end_px - first.x_px)
    return box, view.read(box)


def coverage_of(tissue: TissueMask, box: Box) -> NDArray[np.uint8]:
    """Return 1 where a block's pixels are analysed, else 0; shape ``(h, w)``."""
    cell = tissue.px_per_cell
    rows = np.arange(box.y_px, box.y_end_px) // cell
    columns = np.arange(box.x_px, box.x_end_px) // cell
    part: NDArray[np.uint8] = tissue.mask[np.ix_(rows, columns)].astype(np.uint8)
    return part
