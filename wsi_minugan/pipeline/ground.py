"""What a count stands on: the tissue's raster, regions that the user drew, and the model's measured errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.interval import LEAST_PATIENTS, PatientCounts
from wsi_minugan.counting.regions import TissueRaster, covered_cells
from wsi_minugan.counting.settings import Options, Reliability
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Frame
from wsi_minugan.minugan.card import ModelCard, OperatingPoint
from wsi_minugan.outputs.models import ErrorsOnPatient, ModelErrors
from wsi_minugan.outputs.objects import read_regions
from wsi_minugan.slides.tissue import TissueMask

REACH_PX = 640
"""So far around a region is analysed, analysis px: no mitosis whose centre lies in it can reach farther, nor a patch that shapes it."""
_MOST_MASK_BYTES = 2**28
_MOST_MASK_PX = 2**26


@dataclass(frozen=True)
class Drawn:
    """What the user drew on a slide, level-0 px.

    Attributes
    ----------
    regions : dict of str to shapely geometry
        Named regions, less what is excluded; empty where none was drawn.
    allowed : shapely geometry or None
        What is counted; None where that is all of the slide.
    own_tissue : bool
        Whether the tissue was drawn too.
    """

    regions: dict[str, shapely.Geometry] = field(default_factory=dict)
    allowed: shapely.Geometry | None = None
    own_tissue: bool = False


def read_drawn(
    settings: RunSettings, slide_id: str, width_px: int, height_px: int, origin_px: tuple[int, int] = (0, 0)
) -> Drawn:
    """Read the files of regions, of what to exclude, and of tissue.

    Parameters
    ----------
    settings : RunSettings
        They name the files, or folders with one for each slide.
    slide_id : str
        Which of these.
    width_px, height_px : int
        Size of the slide.
    origin_px : tuple of int
        What coordinates count from in files that do not say it.

    Returns
    -------
    Drawn
        In level-0 px; empty where the settings name no file.

    Raises
    ------
    InputError
        If a file cannot be read, holds no area, or nothing is left to count in.
    """
    if settings.region is None and settings.exclude is None and settings.tissue_mask is None:
        return Drawn()
    slide = shapely.box(0, 0, width_px, height_px)
    allowed = slide
    if settings.tissue_mask is not None:
        allowed = shapely.intersection(
            allowed, _tissue(_file(settings.tissue_mask, slide_id), slide, origin_px)
        )
    excluded = None
    if settings.exclude is not None:
        excluded = shapely.union_all(
            list(read_regions(_file(settings.exclude, slide_id), origin_px).values())
        )
        allowed = shapely.difference(allowed, excluded)
    regions = {} if settings.region is None else read_regions(_file(settings.region, slide_id), origin_px)
    regions = {name: _polygons(shapely.intersection(r, allowed)) for name, r in regions.items()}
    if settings.region is not None:
        allowed = shapely.union_all(list(regions.values()))
    allowed = _polygons(allowed)
    if allowed.is_empty:
        raise InputError(
            f"Nothing of the slide {slide_id} is left to count in: the region lies outside of it, or is excluded. "
            "Look at the files of --region, --exclude and --tissue-mask over the slide in QuPath."
        )
    return Drawn(regions, allowed, settings.tissue_mask is not None)


def _polygons(area: shapely.Geometry) -> shapely.Geometry:
    """Return only the polygons of a geometry: where borders touch, lines and points are left over."""
    parts = [p for p in shapely.get_parts(area) if p.geom_type in {"Polygon", "MultiPolygon"}]
    return shapely.union_all(parts) if parts else shapely.Polygon()


def _file(path: Path, slide_id: str) -> Path:
    """Return the file itself, or that of a slide in a folder."""
    if not path.is_dir():
        return path
    for suffix in (".geojson", ".geojson.gz", ".json", ".png"):
        file = path / f"{slide_id}{suffix}"
        if file.parent == path and file.is_file():
            return file
    raise InputError(
        f"There is no {slide_id}.geojson in {path}. Each slide needs one, or name one file for all."
    )


def _tissue(path: Path, slide: shapely.Geometry, origin_px: tuple[int, int]) -> shapely.Geometry:
    """Return the tissue that a GeoJSON or a PNG (tissue is what is not black) shows, level-0 px."""
    if path.suffix.lower() != ".png":
        return shapely.union_all(list(read_regions(path, origin_px).values()))
    image = _png(path)
    _, _, width, height = slide.bounds
    h, w = image.shape
    if not 0.95 <= (width / w) / (height / h) <= 1.05:
        raise InputError(
            f"{path} has {w} x {h} px and the slide {width:.0f} x {height:.0f}: their shapes differ. Export the mask of all of the slide."
        )
    padded = np.pad(image > 0, ((0, 0), (1, 1))).astype(np.int8)
    rows, starts = np.nonzero(np.diff(padded, axis=1) == 1)
    _, ends = np.nonzero(np.diff(padded, axis=1) == -1)
    sx, sy = width / w, height / h
    return shapely.union_all(shapely.box(starts * sx, rows * sy, ends * sx, (rows + 1) * sy))


def _png(path: Path) -> NDArray[np.uint8]:
    try:
        if path.stat().st_size > _MOST_MASK_BYTES:
            raise InputError(f"{path} is larger than 256 MB. Export the mask at a lower resolution.")
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}. Check the name.") from e
    try:
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        image = None
    if image is None or image.size > _MOST_MASK_PX:
        raise InputError(
            f"{path} is no PNG that can be read, or has more than 67 million pixels. Export it again, smaller."
        )
    return np.asarray(image, np.uint8)


def within(tissue: TissueMask, allowed: shapely.Geometry, frame: Frame) -> TissueMask:
    """Return the part of a mask that must be analysed to count within a region: its cells, and what is near enough to shape them.

    Parameters
    ----------
    tissue : TissueMask
        What was found.
    allowed : shapely geometry
        What counts, level-0 px.
    frame : Frame
        Analysis frame.

    Returns
    -------
    TissueMask
        Without the other cells.
    """
    side = tissue.px_per_cell * frame.scale
    near = shapely.buffer(allowed, REACH_PX * frame.scale)
    whole, cut = covered_cells(near, tissue.mask.shape, side)
    return tissue.without(~(whole | cut))


def raster_of(tissue: TissueMask, frame_scale: float) -> TissueRaster:
    """Return a mask as the raster that counting takes, level-0 px.

    Parameters
    ----------
    tissue : TissueMask
        Cells in analysis px.
    frame_scale : float
        Level-0 pixels per analysis pixel.

    Returns
    -------
    TissueRaster
        The same cells.
    """
    s = frame_scale
    return TissueRaster(
        tissue.mask, tissue.px_per_cell * s, tissue.width_px * s, tissue.height_px * s, tissue.stained
    )


def options_of(settings: RunSettings) -> Options:
    """Return how the settings want mitoses to be counted.

    Parameters
    ----------
    settings : RunSettings
        The run's, or those of a recount.

    Returns
    -------
    Options
        For `count_mitoses`.
    """
    return Options(
        settings.hotspot_shape, settings.aspect_ratio, settings.min_tissue, settings.hotspots, settings.fields
    )


def reliability_of(
    card: ModelCard, mitosis_threshold: float | None, point: OperatingPoint = "balanced"
) -> Reliability:
    """Return what a card says of the model's errors.

    Parameters
    ----------
    card : ModelCard
        The model's card.
    mitosis_threshold : float, optional
        The user's own; with it nothing is known.
    point : {"balanced", "sensitive", "specific"}
        The operating point.

    Returns
    -------
    Reliability
        With the reason where nothing is known.
    """
    if mitosis_threshold is not None:
        return Reliability(
            why_not="The mitosis threshold was set by hand, and the model's errors were measured with the card's."
        )
    known = card.reliability
    if known is None:
        return Reliability()
    measured = known.operating_points.get(point)
    if measured is None:
        return Reliability(why_not=f"The model's errors were not measured at its operating point {point}.")
    if len(measured.patients) < LEAST_PATIENTS:
        return Reliability(
            why_not=f"The model's errors were measured on fewer than {LEAST_PATIENTS} patients, too few to see how they differ."
        )
    patients = tuple(
        PatientCounts(p.area_mm2, p.true_positives, p.false_positives, p.false_negatives)
        for p in measured.patients
    )
    # Scores of a second stage are probabilities.
    return Reliability(point, patients, known.reader_f1, card.candidate_stage is not None)


def errors_of(known: Reliability) -> ModelErrors:
    """Return the model's errors as a manifest holds them.

    Parameters
    ----------
    known : Reliability
        The model's errors.

    Returns
    -------
    ModelErrors
        Part of the manifest.
    """
    patients = tuple(
        ErrorsOnPatient(**{k: getattr(p, k) for k in ErrorsOnPatient.model_fields}) for p in known.patients
    )
    return ModelErrors(
        operating_point=known.operating_point,
        patients=patients,
        reader_f1=known.reader_f1,
        calibrated=known.calibrated,
        why_not="" if patients else known.why_not,
    )


def reliability_in(written: ModelErrors) -> Reliability:
    """Return what `errors_of` was made from.

    Parameters
    ----------
    written : ModelErrors
        Part of a manifest.

    Returns
    -------
    Reliability
        For `count_mitoses`.
    """
    patients = tuple(
        PatientCounts(p.area_mm2, p.true_positives, p.false_positives, p.false_negatives)
        for p in written.patients
    )
    return Reliability(
        written.operating_point, patients, written.reader_f1, written.calibrated, written.why_not
    )
