"""The last stage of a slide: polygons, nuclei, count, overview and pyramid from its finished masks; the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.count import count_mitoses
from wsi_minugan.counting.density import MAP_STEP, density_map
from wsi_minugan.counting.models import Count
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.settings import Ground, Reliability
from wsi_minugan.counting.windows import circle_of
from wsi_minugan.errors import RETRY, OutputError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.sentinel import load_range, warnings_of
from wsi_minugan.outputs import geojson, manifest
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import Manifest, SlideFacts, SlideState
from wsi_minugan.outputs.nuclei import write_nuclei
from wsi_minugan.outputs.overview import LONGEST_PX as OVERVIEW_PX
from wsi_minugan.outputs.overview import Findings, draw_overview
from wsi_minugan.pipeline.areas import REGIONS, outline_of, windows_of, write_regions_file
from wsi_minugan.pipeline.blocks.shapes import shapes_by_row
from wsi_minugan.pipeline.closeups import draw_closeups, sampled_figures
from wsi_minugan.pipeline.facts import model_facts, versions
from wsi_minugan.pipeline.ground import errors_of, options_of, raster_of, reliability_of
from wsi_minugan.pipeline.own_files import STORE, own_files, remove_partial
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.pipeline.planning.plan_file import PLAN_FILE
from wsi_minugan.pipeline.planning.slide_stain import facts_of
from wsi_minugan.pipeline.scratch import ANALYSED, WORK, WRITTEN, Scratch
from wsi_minugan.segmentation.masks import writing
from wsi_minugan.segmentation.merging import SlideObjects
from wsi_minugan.segmentation.outlines import scaled, to_level0
from wsi_minugan.slides.analysis import thumbnail
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.reader import SlideReader
from wsi_minugan.syncing import sync
from wsi_minugan.words import pluralize

_PART_NUCLEI = 20_000


@dataclass(frozen=True)
class SlideWork:
    """What the last stage needs besides the plan.

    Attributes
    ----------
    settings : RunSettings
        The run's settings.
    bundle : Bundle
        The model.
    fingerprint : str
        The slide's; ids are made from it.
    """

    settings: RunSettings
    bundle: Bundle
    fingerprint: str


def finish_slide(plan: SlidePlan, reader: SlideReader, work: SlideWork, folder: Path) -> SlideState:
    """Write all that is left of a slide's results, remove its scratch, write its manifest, and return its row of slides.csv.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    reader : SlideReader
        The open slide.
    work : SlideWork
        Settings, model and checksum.
    folder : Path
        The slide's result folder.

    Returns
    -------
    SlideState
        The row.

    Raises
    ------
    OutputError
        If a shard is missing or damaged, or the folder cannot be written.
    """
    scratch = Scratch(folder / WORK, plan.key)
    # Before anything is made of them: a damaged shard would end the pyramid in an error that nobody expected.
    _check_shards(scratch, len(plan.blocks), manifest.digests(folder, own_files(folder)))
    mitoses = scratch.load_merged("mitoses")
    shapes = _mitosis_shapes(plan, scratch, mitoses)
    points_px, peaks = geojson.centroids_of(shapes), mitoses.table["peak"] / 255
    count = _count(plan, points_px, peaks, work)
    write_text(folder / "count.json", count.model_dump_json(indent=2) + "\n")
    _write_mitoses(plan, mitoses, shapes, count, work, folder)
    if plan.drawn.allowed is not None:
        write_regions_file(folder / REGIONS, plan.drawn, work.fingerprint, _origin(plan, work))
    if work.settings.nuclei:
        _write_nuclei(plan, scratch, folder)
    _draw(plan, reader, points_px, count, folder)
    # By their peaks, which thresholds decide on.
    draw_closeups(reader, plan.frame.level0_mpp, shapes, peaks, outline_of(count.hotspot), folder)
    coarse = writing.build_pyramid(folder / STORE, plan.frame) | _write_coarse(plan, points_px, count, folder)
    figures = sampled_figures(plan, reader)
    known = load_range(work.bundle.path)
    warnings = (*count.warnings, *(warnings_of(figures, known) if known else ()))
    remove_partial(folder)
    scratch.check()
    digests = manifest.digests(folder, own_files(folder))
    _check_shards(scratch, len(plan.blocks), digests, {f"{STORE}/{name}": v for name, v in coarse.items()})
    manifest.write_manifest(folder, _manifest(plan, work, warnings, figures, digests))
    # Scratch goes last: a slide killed before its manifest goes on from it.
    shutil.rmtree(folder / WORK)
    sync(folder)
    return slide_state(plan.slide, folder)


def _check_shards(
    scratch: Scratch, blocks: int, found: Mapping[str, str], coarse: Mapping[str, str] | None = None
) -> None:
    """Check that the masks hold what blocks wrote; with the `coarse` levels that follow from it, also that they hold no more.

    A slide that lacks some is planned anew by the next run.
    """
    written = [scratch.load_shards(part, k) for part in (ANALYSED, WRITTEN) for k in range(blocks)]
    expected = {name: digest for part in (*written, coarse) for name, digest in (part or {}).items()}
    more = {name for name in found if _is_shard(name)} if coarse is not None else set()
    wrong = sorted(name for name in expected.keys() | more if expected.get(name) != found.get(name))
    if not wrong and None not in written:
        return
    scratch.check()  # the plan of a run that has begun since is not this one's to remove
    (scratch.folder / PLAN_FILE).unlink(missing_ok=True)
    what = (
        f"{pluralize(len(wrong), 'file')} of the masks (first {wrong[0]})" if wrong else "Notes on the masks"
    )
    raise OutputError(
        f"{what} in {scratch.folder.parent} are not as they were written: the disk failed, or another program "
        f"changed them. Check the disk, then do this slide again with: {RETRY}"
    )


def _is_shard(name: str) -> bool:
    return name.startswith(f"{STORE}/") and not name.endswith("zarr.json")


def slide_state(slide: SlideInput, folder: Path) -> SlideState:
    """Return the row of slides.csv of a finished slide, from its files.

    Parameters
    ----------
    slide : SlideInput
        The slide.
    folder : Path
        Its result folder.

    Returns
    -------
    SlideState
        The row.

    Raises
    ------
    OutputError
        If the folder holds no finished result.
    """
    written = manifest.read_manifest(folder)
    try:
        count = Count.model_validate_json((folder / "count.json").read_bytes())
        nuclei = (
            pq.read_metadata(folder / "nuclei.parquet").num_rows
            if "nuclei.parquet" in written.files
            else None
        )
    except (OSError, ValueError) as e:
        raise OutputError(
            f"The results in {folder} cannot be read: {e}. Remove this folder, then take the slides that are not done again "
            f"with: {RETRY}"
        ) from e
    return SlideState(
        slide_id=slide.slide_id,
        path=str(slide.path),
        status="done",
        mpp=written.slide.mpp,
        tissue_mm2=round(written.tissue_mm2, 4),
        nuclei=nuclei,
        mitoses=count.mitoses,
        mitoses_per_mm2=None if count.mitoses_per_mm2 is None else round(count.mitoses_per_mm2, 4),
        hotspot_mitoses=count.hotspot.mitoses,
        hotspot_area_mm2=round(count.hotspot.area_mm2, 4),
        nottingham_score=count.scores.nottingham,
        hotspot_tissue_fraction=count.hotspot.tissue_fraction,
        tupac16_score=count.scores.tupac16,
        hotspot_mitoses_per_mm2=round(count.hotspot.mitoses_per_mm2, 4),
        warnings=tuple(written.warnings),
    )


def _count(
    plan: SlidePlan, points_px: NDArray[np.float64], scores: NDArray[np.float64], work: SlideWork
) -> Count:
    settings = work.settings
    ground = Ground(
        counted_raster(plan),
        np.round(scores, 4),  # as they are written
        plan.drawn.regions,
        _reliability(work),
    )
    return count_mitoses(
        points_px,
        plan.frame.level0_mpp,
        settings.hotspot_area_mm2,
        settings.hpf_diameter_mm,
        tissue_of(plan),
        ground,
        options_of(settings),
    )


def _reliability(work: SlideWork) -> Reliability:
    settings = work.settings
    return reliability_of(
        work.bundle.card, settings.mitosis_threshold, settings.operating_point, settings.stain
    )


def tissue_of(plan: SlidePlan) -> float:
    """Return the area of the tissue analysed, mm2, as all files give it.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.

    Returns
    -------
    float
        mm2, to 1 um2.
    """
    return round(plan.tissue_mm2, 6)


def counted_raster(plan: SlidePlan) -> TissueRaster:
    """Return the raster of what was analysed and counts: without what lies outside of the regions that the user drew.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.

    Returns
    -------
    TissueRaster
        Level-0 px.
    """
    raster = raster_of(plan.tissue, plan.frame.scale)
    return raster if plan.drawn.allowed is None else raster.within(plan.drawn.allowed)


def _write_coarse(
    plan: SlidePlan, points_px: NDArray[np.float64], count: Count, folder: Path
) -> dict[str, str]:
    """Write the layers of few pixels: what of the coverage is tissue, and mitoses per mm2 in circles as large as the hot spot."""
    store, raster = folder / STORE, raster_of(plan.tissue, plan.frame.scale)
    cell_um = plan.tissue.px_per_cell * plan.frame.mpp
    written = writing.write_coarse(store, "tissue", raster.counted.astype(np.uint8), cell_um)
    shape = circle_of(count.hotspot.area_mm2, plan.frame.level0_mpp)
    values = density_map(points_px, counted_raster(plan), shape, plan.frame.level0_mpp)
    return written | writing.write_coarse(store, "density", values, cell_um * MAP_STEP)


def _mitosis_shapes(plan: SlidePlan, scratch: Scratch, mitoses: SlideObjects) -> NDArray[np.object_]:
    """Return the mitoses' polygons in level-0 px, as they are written."""
    shapes = [s for _, part in shapes_by_row(plan, scratch, mitoses, "mitoses") for s in part]
    return geojson.as_written(to_level0(np.array(shapes, object), plan.frame.scale))


def _write_mitoses(
    plan: SlidePlan,
    mitoses: SlideObjects,
    shapes: NDArray[np.object_],
    count: Count,
    work: SlideWork,
    folder: Path,
) -> None:
    table = mitoses.table
    measurements: dict[str, NDArray[Any]] = {
        "Area um2": shapely.area(shapes) * plan.frame.level0_mpp**2,
        geojson.PEAK: table["peak"] / 255,
        "Mean score": _mean_scores(mitoses),
    }
    origin = plan.info.bounds_px if work.settings.bounds_offset else None
    first_px = np.stack([table["first_x"], table["first_y"]], axis=1)
    found = geojson.Mitoses(shapes, measurements, first_px, work.fingerprint, origin)
    geojson.write_geojson(folder / "mitoses.geojson", found, windows_of(count))


def _origin(plan: SlidePlan, work: SlideWork) -> tuple[int, int]:
    """Return x, y of the level-0 pixel that the slide's GeoJSON files count from."""
    return plan.info.bounds_px if work.settings.bounds_offset else (0, 0)


def _mean_scores(found: SlideObjects) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = found.table["sum_score"] / np.maximum(1, found.table["area_px"]) / 255
    return scores


def _write_nuclei(plan: SlidePlan, scratch: Scratch, folder: Path) -> None:
    nuclei = scratch.load_merged("nuclei")
    batches = _nuclei_batches(plan, scratch, nuclei)
    write_nuclei(folder / "nuclei.parquet", batches, plan.slide.slide_id, plan.frame.level0_mpp)


def _nuclei_batches(plan: SlidePlan, scratch: Scratch, nuclei: SlideObjects) -> Iterator[dict[str, Any]]:
    um2 = plan.frame.level0_mpp**2
    for start, shapes in shapes_by_row(plan, scratch, nuclei, "nuclei"):
        for a in range(0, len(shapes), _PART_NUCLEI):
            part = scaled(shapes[a : a + _PART_NUCLEI], plan.frame.scale)
            first, centroids = start + a + 1, geojson.centroids_of(part)
            yield {
                "nucleus": np.arange(first, first + len(part), dtype=np.uint32),
                "centroid_x_px": centroids[:, 0],
                "centroid_y_px": centroids[:, 1],
                "area_um2": shapely.area(part) * um2,
                "geometry": shapely.to_wkb(part),
            }


def _draw(
    plan: SlidePlan, reader: SlideReader, points_px: NDArray[np.float64], count: Count, folder: Path
) -> None:
    found = Findings(points_px, outline_of(count.hotspot), plan.frame.level0_mpp)
    picture = thumbnail(reader, OVERVIEW_PX, plan.info.levels)
    draw_overview(folder / "overview.png", picture, plan.info.width_px, found)


def _manifest(
    plan: SlidePlan,
    work: SlideWork,
    warnings: tuple[str, ...],
    figures: dict[str, float],
    digests: dict[str, str],
) -> Manifest:
    info, frame, splitting = plan.info, plan.frame, work.bundle.card.nucleus_splitting
    return Manifest(
        slide=SlideFacts(
            slide_id=plan.slide.slide_id,
            file_name=None if work.settings.pseudonyms else plan.slide.path.name,
            fingerprint=work.fingerprint,
            width_px=info.width_px,
            height_px=info.height_px,
            levels=len(info.levels),
            mpp=frame.level0_mpp,
            mpp_source=plan.mpp_source,
            vendor=info.vendor,
            objective=info.objective,
            bounds_x_px=info.bounds_px[0],
            bounds_y_px=info.bounds_px[1],
        ),
        model=model_facts(work.bundle),
        model_errors=errors_of(_reliability(work)),
        nucleus_splitting=None if splitting is None else splitting.model_dump(),
        settings=work.settings.results_key(),
        versions=versions(),
        analysis_mpp=frame.mpp,
        analysis_width_px=frame.width_px,
        analysis_height_px=frame.height_px,
        tissue_mm2=tissue_of(plan),
        patches=plan.grid.patches_each * len(plan.patches_of(frame.box)),
        tiles_not_analysed=plan.broken_tiles,
        stain=facts_of(plan.stain),
        geojson_origin_px=_origin(plan, work),
        warnings=[*plan.warnings, *warnings],
        pixel_figures=figures,
        files=digests,
    )
