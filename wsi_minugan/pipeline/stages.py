"""The stages of one slide: analyse its blocks, merge their objects, write its masks.

Each stage is a function of small picklable values and of files, so that it can run anywhere. Pixels never travel: they
are read, and masks are written, where a stage runs. What a stage yields depends on the slide, the settings and the model
alone, never on how blocks are cut or in which order they run.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.regions import points_in
from wsi_minugan.geometry import UM2_PER_MM2, Box
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.card import NucleusSplitting
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.outputs.atomic import not_written
from wsi_minugan.pipeline.blocks.packing import ClassObjects
from wsi_minugan.pipeline.blocks.patches import blend_left_over, predict_into
from wsi_minugan.pipeline.blocks.splitting import pieces_by_block, split_crossing, split_inside
from wsi_minugan.pipeline.own_files import STORE
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.pipeline.scratch import WORK, WRITTEN, Scratch
from wsi_minugan.segmentation import classes
from wsi_minugan.segmentation.blend import Blender
from wsi_minugan.segmentation.masks import writing
from wsi_minugan.segmentation.merging import Wanted, join_objects, numbered_objects
from wsi_minugan.segmentation.objects import ObjectCut, measure_objects, object_cut
from wsi_minugan.segmentation.outlines import outlines
from wsi_minugan.segmentation.run_lengths import RunLengthMask, run_length_mask
from wsi_minugan.segmentation.splitting import Splitting, splitting_px
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.checks.blanks import WatchedView
from wsi_minugan.slides.reader import SlideReader
from wsi_minugan.slides.tissue import TissueMask
from wsi_minugan.syncing import sync

CLASS_OF = {"mitoses": classes.MITOSIS, "nuclei": classes.NUCLEUS}


@dataclass(frozen=True)
class ObjectThresholds:
    """Thresholds of scores and of objects, from the model's card and the user.

    Attributes
    ----------
    classes : Thresholds
        Thresholds of the pixels' scores.
    min_area_um2 : dict of str to float
        Least area of "mitoses" and "nuclei".
    mitosis_peak : float
        Least peak of a mitosis, 0 to 1.
    splitting : NucleusSplitting, optional
        Where touching nuclei are split; None for models that do not ask for it.
    """

    classes: classes.Thresholds
    min_area_um2: dict[str, float]
    mitosis_peak: float
    splitting: NucleusSplitting | None = None

    def of(self, name: str, mpp: float) -> ObjectCut:
        """Return which objects of a class are kept; `mpp` is that of the mask.

        Parameters
        ----------
        name : {"mitoses", "nuclei"}
            The class.
        mpp : float
            um per pixel of the mask.

        Returns
        -------
        ObjectCut
            Least area and least peak.
        """
        return object_cut(self.min_area_um2[name], self.mitosis_peak if name == "mitoses" else 0.0, mpp)

    def splitting_of(self, name: str, mpp: float) -> Splitting | None:
        """Return where touching objects of a class are split; `mpp` is that of the mask.

        Parameters
        ----------
        name : {"mitoses", "nuclei"}
            The class.
        mpp : float
            um per pixel of the mask.

        Returns
        -------
        Splitting or None
            In px of the mask; None where they stay as they are, as mitoses do.
        """
        if name != "nuclei" or self.splitting is None:
            return None
        return splitting_px(mpp, **self.splitting.model_dump())


def object_thresholds(bundle: Bundle, settings: RunSettings) -> ObjectThresholds:
    """Return the card's thresholds at an operating point; a user's mitosis threshold takes the place of the peak.

    Parameters
    ----------
    bundle : Bundle
        The model.
    settings : RunSettings
        Operating point, and the user's threshold.

    Returns
    -------
    ObjectThresholds
        All thresholds of a run.

    Raises
    ------
    ModelError
        If the card does not have the operating point.
    """
    card = bundle.card.thresholds
    peak = bundle.card.least_peak(settings.operating_point, settings.mitosis_threshold)
    # Scores of a second stage are probabilities of objects, whose outlines no threshold shall move.
    one_stage = bundle.card.candidate_stage is None
    pixel = (settings.mitosis_threshold or card.mitosis) if one_stage else min(card.mitosis, peak)
    return ObjectThresholds(
        classes.Thresholds(pixel, card.nucleus, card.boundary),
        {"mitoses": card.mitosis_min_area_um2, "nuclei": card.nucleus_min_area_um2},
        peak,
        bundle.card.nucleus_splitting,
    )


@dataclass(frozen=True)
class BlockReport:
    """What one block took.

    Attributes
    ----------
    patches, reused : int
        Patches that went through the network, and those that a neighbouring block had already put through.
    tissue_mm2 : float
        Area analysed.
    forward_s, seconds : float
        Time in the network, and in all.
    """

    patches: int
    reused: int
    tissue_mm2: float
    forward_s: float
    seconds: float


def prepare_store(plan: SlidePlan, folder: Path, nuclei: bool) -> None:
    """Make the slide's folder, with one for scratch, and its empty masks.

    Nothing else makes a slide's folder, and nothing makes the run's: when the user removes it while slides are on their way, it stays away.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    folder : Path
        The slide's result folder.
    nuclei : bool
        Whether nuclei get numbers.

    Raises
    ------
    OutputError
        If the folder that it lies in is gone, or cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        (folder / WORK).mkdir(exist_ok=True)
        Scratch(folder / WORK, plan.key).place.mkdir(exist_ok=True)
        for made in (folder / WORK, folder, folder.parent):
            sync(made)
    except OSError as e:
        raise not_written(folder, e) from e
    writing.create_store(folder / STORE, plan.frame, plan.block_px, nuclei)


def analyse_block(
    plan: SlidePlan,
    index: int,
    reader: SlideReader,
    predictor: Predictor,
    thresholds: ObjectThresholds,
    folder: Path,
    nuclei: bool = True,
) -> BlockReport:
    """Run the network over a block; write its mitosis score and coverage, and its objects to scratch.

    Parameters
    ----------
    plan : SlidePlan
        The slide.
    index : int
        Which of the plan's blocks.
    reader : SlideReader
        The open slide.
    predictor : Predictor
        The model.
    thresholds : ObjectThresholds
        Thresholds.
    folder : Path
        The slide's result folder.
    nuclei : bool
        Whether the outlines of nuclei are wanted.

    Returns
    -------
    BlockReport
        How many patches there were, and how long they took.
    """
    start = time.perf_counter()
    box, scratch, store = plan.blocks[index], Scratch(folder / WORK, plan.key), folder / STORE
    outer = box.grown(classes.REACH_PX)
    wanted = plan.patches_of(outer)
    blender = Blender(outer, plan.grid)
    fresh = blend_left_over(blender, plan, box, wanted, scratch)
    view = WatchedView(AnalysisView(reader, plan.frame), plan.tissue, plan.slide.path)
    forward_s = predict_into(blender, plan, fresh, view, predictor, box, scratch)
    scores = blender.scores()
    inner = box.slices_within(outer)
    coverage = coverage_of(plan.tissue, box)
    found_classes = classes.class_map(scores, thresholds.classes)[inner] * coverage
    score = np.ascontiguousarray(scores[1][inner]) * coverage
    scratch.check()
    with ThreadPoolExecutor(1, "write") as writer:
        written = [
            writer.submit(writing.write_block, store, name, box, pixels)
            for name, pixels in (("mitosis_score", score), ("coverage", coverage))
        ]
        runs = {n: run_length_mask(found_classes == value) for n, value in CLASS_OF.items()}
        for name, part in runs.items():
            if rule := thresholds.splitting_of(name, plan.frame.mpp):
                runs[name] = split_inside(part, rule)
        # Nuclei are measured in any case: the class map lacks the small ones, whether their numbers are wanted or not.
        drawn = set(CLASS_OF) if nuclei else {"mitoses"}
        found = {n: _objects_of(runs[n], score, plan, index, n, thresholds, n in drawn) for n in CLASS_OF}
        shards = {f"{STORE}/{name}": digest for part in written for name, digest in part.result().items()}
    scratch.save_block(index, runs, found, shards)
    area = float(np.count_nonzero(coverage)) * plan.frame.mpp**2 / UM2_PER_MM2
    patches, reused = (n * plan.grid.patches_each for n in (len(fresh), len(wanted) - len(fresh)))
    return BlockReport(patches, reused, area, forward_s, time.perf_counter() - start)


def _objects_of(
    found: RunLengthMask,
    score: NDArray[np.uint8],
    plan: SlidePlan,
    index: int,
    name: str,
    thresholds: ObjectThresholds,
    drawn: bool,
) -> ClassObjects:
    box = plan.blocks[index]
    objects = measure_objects(found, score if name == "mitoses" else None, box)
    # Outlines of what will be dropped, or is not whole, would be drawn in vain.
    kept = thresholds.of(name, plan.frame.mpp).keeps(objects.table["area_px"], objects.table["peak"]) & drawn
    return ClassObjects(objects, outlines(found, kept & ~objects.crossing, (box.y_px, box.x_px)))


def coverage_of(tissue: TissueMask, box: Box) -> NDArray[np.uint8]:
    """Return 1 where a block's pixels are analysed, else 0; shape ``(h, w)``.

    Parameters
    ----------
    tissue : TissueMask
        What is analysed.
    box : Box
        The block, analysis px.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        In the block's px.
    """
    cell = tissue.px_per_cell
    rows = np.arange(box.y_px, box.y_end_px) // cell
    columns = np.arange(box.x_px, box.x_end_px) // cell
    # Rows first: they are copied whole, several times as fast as pixel by pixel.
    part: NDArray[np.uint8] = tissue.mask.astype(np.uint8)[:, columns][rows]
    return part


def merge_blocks(plan: SlidePlan, thresholds: ObjectThresholds, folder: Path) -> dict[str, int]:
    """Join the blocks' objects into the slide's, write these to scratch, and return how many there are of each class.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    thresholds : ObjectThresholds
        Which objects are kept.
    folder : Path
        The slide's result folder.

    Returns
    -------
    dict of str to int
        By class.
    """
    scratch = Scratch(folder / WORK, plan.key)
    return {name: _merge(plan, thresholds, scratch, name) for name in CLASS_OF}


def _merge(plan: SlidePlan, thresholds: ObjectThresholds, scratch: Scratch, name: str) -> int:
    """Join, split and number a class's objects, write them to scratch, and return how many there are."""
    objects = [scratch.load_objects(k, box, name) for k, box in enumerate(plan.blocks)]
    found, pieces = join_objects(objects), None
    if rule := thresholds.splitting_of(name, plan.frame.mpp):
        found, pieces = split_crossing(
            objects, found, lambda k: scratch.load_run_lengths(k, name, plan.blocks[k]), rule
        )
    merged = numbered_objects(found, thresholds.of(name, plan.frame.mpp), _wanted(plan))
    scratch.save_merged(name, merged, pieces_by_block(plan.blocks, pieces, merged.numbers[-1]))
    return merged.count


def _wanted(plan: SlidePlan) -> Wanted | None:
    """Return which objects count by their centroids (analysis px): those in the regions that the user drew."""
    allowed = plan.drawn.allowed
    return None if allowed is None else lambda xy_px: points_in(allowed, xy_px * plan.frame.scale)


def write_block(plan: SlidePlan, index: int, folder: Path, nuclei: bool = True) -> None:
    """Write a block's final class map and instance numbers; dropped objects become background in both.

    Without `nuclei` these have no numbers; the class map is the same.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    index : int
        Which of its blocks.
    folder : Path
        The slide's result folder.
    nuclei : bool
        Whether nuclei get numbers.
    """
    scratch, store, box = Scratch(folder / WORK, plan.key), folder / STORE, plan.blocks[index]
    shards: dict[str, str] = {}
    shape = box.height_px, box.width_px
    found = np.full(shape, classes.BACKGROUND, np.uint8)
    for name, value in CLASS_OF.items():
        runs = scratch.load_numbered(index, name, box)
        scratch.check()
        # Most blocks hold no mitosis, and an empty shard leaves no file.
        if len(runs.labels) and (nuclei or name != "nuclei"):
            image = np.zeros(shape, np.uint32)
            runs.paint(image, runs.labels)
            shards |= writing.write_block(store, name, box, image)
        runs.paint(found, value)
    shards |= writing.write_block(store, "classes", box, found)
    scratch.save_shards(WRITTEN, index, {f"{STORE}/{name}": digest for name, digest in shards.items()})
