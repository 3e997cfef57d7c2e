"""What a recount needs of a finished slide's folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import shapely

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.settings import NO_MODEL, Options, Reliability
from wsi_minugan.errors import ModelError, OutputError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import Bundle, list_bundles, load_card
from wsi_minugan.outputs.manifest import problems_in, read_manifest
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.pipeline.areas import REGIONS, Drawn, both_drawn, read_drawn, read_regions_file
from wsi_minugan.pipeline.ground import options_of, raster_of, reliability_in, reliability_of
from wsi_minugan.segmentation.masks import reading
from wsi_minugan.slides.tissue import CELL_PX, TissueMask

_ANY_PX = 10**8
"""A slide that is not there is taken to be so large."""

_READ = ("masks.zarr/coverage/", "masks.zarr/tissue/", REGIONS)


@dataclass(frozen=True)
class Finished:
    """A finished slide, to be counted again.

    Attributes
    ----------
    manifest : Manifest
        What it was made from.
    tissue : TissueRaster
        What was analysed.
    reliability : Reliability
        The errors of the model that found its mitoses.
    drawn : Drawn
        What the run counted in.
    """

    manifest: Manifest
    tissue: TissueRaster
    reliability: Reliability
    drawn: Drawn = field(default_factory=Drawn)

    @cached_property
    def counted(self) -> DrawnOver:
        """What the run counted in.

        Returns
        -------
        DrawnOver
            Regions and rasters in level-0 px.
        """
        return counted_in(self, self.drawn)


def open_finished(folder: Path) -> Finished:
    """Read what a count needs of a finished slide's folder.

    Parameters
    ----------
    folder : Path
        ``OUT/SLIDE_ID``.

    Returns
    -------
    Finished
        Manifest, and the raster of what was analysed.

    Raises
    ------
    OutputError
        If it holds no finished result, or one whose masks were lost or changed.
    InputError
        If its regions.geojson cannot be read.
    """
    written = read_manifest(folder)
    # Where the file of a part is lost, that part reads as glass.
    lost = problems_in(folder, written, _READ)
    if lost:
        raise OutputError(f"{folder} cannot be counted as it was written ({lost[0]}). Run the slide again.")
    h, w = written.analysis_height_px, written.analysis_width_px
    cells = reading.read_coarse(folder / "masks.zarr", "coverage", Box(0, 0, h, w), CELL_PX) > 0
    stained = reading.read_whole(folder / "masks.zarr", "tissue")
    mask = TissueMask(cells, CELL_PX, w, h, None if stained is None else stained > 0)
    raster = raster_of(mask, written.analysis_mpp / written.slide.mpp)
    drawn = read_regions_file(folder / REGIONS) if REGIONS in written.files else Drawn()
    return Finished(written, raster, _reliability(written), drawn)


def _reliability(written: Manifest) -> Reliability:
    """Return the model's errors as the run had them; of older results, those of the model that the manifest names, if it is here."""
    if written.model_errors is not None:
        return reliability_in(written.model_errors)
    for path in list_bundles():
        try:
            found = Bundle(path, load_card(path))
        except ModelError:
            continue
        # The whole card's digest: models can share a first stage, and differ in what judges its candidates.
        if found.digest == written.model.get("digest"):
            settings = written.settings
            return reliability_of(
                found.card, settings.get("mitosis_threshold"), settings.get("operating_point", "balanced")
            )
    return Reliability(why_not="The model that found these mitoses is not here, so its errors are not known.")


@dataclass(frozen=True)
class DrawnOver:
    """What mitoses are counted on, with what the user drew now.

    Attributes
    ----------
    regions : dict of str to shapely geometry
        Named regions.
    allowed : shapely geometry or None
        What is counted; None where that is everything.
    tissue : TissueRaster or None
        What was analysed, of what is counted.
    tissue_mm2 : float or None
        Its tissue.
    reliability : Reliability
        The model's errors.
    """

    regions: dict[str, shapely.Geometry]
    allowed: shapely.Geometry | None
    tissue: TissueRaster | None
    tissue_mm2: float | None
    reliability: Reliability


def options_in(written: Manifest) -> Options:
    """Return how a run counted.

    Parameters
    ----------
    written : Manifest
        Its settings; what older ones do not say has its default.

    Returns
    -------
    Options
        Shape and number of hot spots, least tissue, fields.
    """
    names = ("hotspot_shape", "aspect", "min_tissue", "hotspots", "fields")
    return options_of(RunSettings(**{n: written.settings[n] for n in names if n in written.settings}))


def drawn_over(
    finished: Finished | None, settings: RunSettings, slide_id: str, origin_px: tuple[int, int]
) -> DrawnOver:
    """Return what is counted of a finished slide, or of a mere list of mitoses, with the files that the settings name.

    What a run counted in, as its regions.geojson has it, is never left.

    Parameters
    ----------
    finished : Finished or None
        The slide; None where only its mitoses are there.
    settings : RunSettings
        They name the files of regions, of what to exclude, and of tissue.
    slide_id : str
        Which file of a folder.
    origin_px : tuple of int
        What coordinates count from in files that do not say it.

    Returns
    -------
    DrawnOver
        Regions and rasters in level-0 px.

    Raises
    ------
    InputError
        If a file cannot be read, or nothing is left to count in.
    """
    if finished is None:
        drawn = read_drawn(settings, slide_id, _ANY_PX, _ANY_PX, origin_px)
        return DrawnOver(drawn.regions, drawn.allowed, None, None, NO_MODEL)
    slide = finished.manifest.slide
    drawn = read_drawn(settings, slide_id, slide.width_px, slide.height_px, origin_px)
    return counted_in(finished, both_drawn(finished.drawn, drawn, slide_id))


def counted_in(finished: Finished, drawn: Drawn) -> DrawnOver:
    """Return what is counted of a finished slide within what was drawn.

    Parameters
    ----------
    finished : Finished
        The slide.
    drawn : Drawn
        In level-0 px.

    Returns
    -------
    DrawnOver
        Regions and rasters in level-0 px.
    """
    tissue, area = finished.tissue, finished.manifest.tissue_mm2
    if drawn.own_tissue:
        tissue = replace(tissue, tissue=None)
    if drawn.allowed is not None:
        area = round(tissue.area_mm2(finished.manifest.slide.mpp, drawn.allowed), 6)
        tissue = tissue.within(drawn.allowed)
    return DrawnOver(drawn.regions, drawn.allowed, tissue, area, finished.reliability)
