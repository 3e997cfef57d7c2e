"""Areas on a slide: what the user drew to count in, with the file that keeps it beside the results; a count's hot spot and fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.config import PATCH_PX, RunSettings
from wsi_minugan.counting.models import Count, HotspotCount
from wsi_minugan.counting.regions import covered_cells
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Frame
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.geojson import (
    FIELD,
    HOTSPOT,
    UNREADABLE,
    Window,
    circle,
    features_of,
    object_id,
    rectangle,
)
from wsi_minugan.outputs.objects import collection_of, from_origin, read_regions
from wsi_minugan.slides.tissue import TissueMask
from wsi_minugan.words import pluralize

REGIONS = "regions.geojson"
_REACH_PX = 384
"""So far around a region, and a patch farther, is analysed, analysis px: no mitosis whose centre lies in it can reach beyond that, nor
a patch that shapes it."""
_MOST_MASK_BYTES = 2**28
_MOST_MASK_PX = 2**26
_COUNTED, _REGION = "Counted area", "Region"
_COLOUR = [120, 120, 120]


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


def check_drawn(settings: RunSettings) -> None:
    """Refuse a file of areas that no slide can use, before any slide is begun: every slide would fail by it.

    Parameters
    ----------
    settings : RunSettings
        They name the files. Folders have a file for each slide, and are read with it.

    Raises
    ------
    InputError
        If a file cannot be read, or holds no area.
    """
    for path in (settings.region, settings.exclude, settings.tissue_mask):
        if path is None or path.is_dir():
            continue
        if path == settings.tissue_mask and path.suffix.lower() == ".png":
            _png(path)
        else:
            read_regions(path)


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


def within(
    tissue: TissueMask, allowed: shapely.Geometry, frame: Frame, patches_across: int = 1
) -> TissueMask:
    """Return the part of a mask that must be analysed to count within a region: its cells, and what is near enough to shape them.

    Parameters
    ----------
    tissue : TissueMask
        What was found.
    allowed : shapely geometry
        What counts, level-0 px.
    frame : Frame
        Analysis frame.
    patches_across : int
        Side of the square of patches that the model sees at once.

    Returns
    -------
    TissueMask
        Without the other cells.
    """
    side = tissue.px_per_cell * frame.scale
    near = shapely.buffer(allowed, (_REACH_PX + PATCH_PX * patches_across) * frame.scale)
    whole, cut = covered_cells(near, tissue.mask.shape, side)
    return tissue.without(~(whole | cut))


def both_drawn(before: Drawn, now: Drawn, slide_id: str) -> Drawn:
    """Return what was drawn for a run and for a count of it together: what lies in both.

    Parameters
    ----------
    before, now : Drawn
        For the run, and for the count; level-0 px.
    slide_id : str
        The slide, for the message.

    Returns
    -------
    Drawn
        With the count's regions, where it has any.

    Raises
    ------
    InputError
        If nothing does.
    """
    if before.allowed is None or now.allowed is None:
        return before if now.allowed is None else now
    allowed = _polygons(shapely.intersection(before.allowed, now.allowed))
    if allowed.is_empty:
        raise InputError(
            f"Nothing of the slide {slide_id} is left to count in: the run counted in other places. Look at its {REGIONS} in QuPath."
        )
    regions = {
        n: _polygons(shapely.intersection(r, allowed)) for n, r in (now.regions or before.regions).items()
    }
    return Drawn(regions, allowed, before.own_tissue or now.own_tissue)


def write_regions_file(path: Path, drawn: Drawn, digest: str, origin_px: tuple[int, int]) -> None:
    """Write what a run counts in, for counts to come and for QuPath: the whole area, then each region, as locked annotations.

    Parameters
    ----------
    path : Path
        OUT/SLIDE_ID/regions.geojson.
    drawn : Drawn
        What was drawn; `allowed` is not None.
    digest : str
        The slide's fingerprint, for ids.
    origin_px : tuple of int
        x, y of the level-0 pixel that the file's coordinates count from.
    """
    kind = _COUNTED if not drawn.own_tissue else f"{_COUNTED} (own tissue)"
    areas = [(kind, _COUNTED, drawn.allowed), *((_REGION, name, r) for name, r in drawn.regions.items())]
    lines = []
    for k, (label, name, area) in enumerate(areas):
        properties = {
            "objectType": "annotation", "name": name, "isLocked": True,
            "classification": {"name": label, "color": _COLOUR},
        }  # fmt: skip
        feature = {
            "type": "Feature", "id": object_id(digest, f"area {k}"),
            # Not rounded: a count to come has the same area to the last digit.
            "geometry": shapely.geometry.mapping(from_origin(area, origin_px)), "properties": properties,
        }  # fmt: skip
        lines.append(json.dumps(feature, separators=(",", ":"), allow_nan=False))
    write_text(path, collection_of(lines, origin_px))


def read_regions_file(path: Path) -> Drawn:
    """Return what `write_regions_file` was given.

    Parameters
    ----------
    path : Path
        OUT/SLIDE_ID/regions.geojson.

    Returns
    -------
    Drawn
        In level-0 px.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    features, origin = features_of(path)
    regions, allowed, own = {}, None, False
    try:
        for feature in features:
            label = feature["properties"]["classification"]["name"]
            area = shapely.transform(shapely.geometry.shape(feature["geometry"]), lambda xy: xy + origin)
            if label == _REGION:
                regions[str(feature["properties"]["name"])] = area
            else:
                allowed, own = area, label != _COUNTED
    except UNREADABLE as e:
        raise InputError(f"{path} is not as the run wrote it ({e}). Run the slide again.") from e
    return Drawn(regions, allowed, own)


def outline_of(spot: HotspotCount) -> shapely.Geometry | None:
    """Return the hot spot's outline.

    Parameters
    ----------
    spot : HotspotCount
        Of a count.

    Returns
    -------
    shapely Polygon or None
        In level-0 px; None where it has no place.
    """
    if spot.center_x_px is None or spot.center_y_px is None:
        return None
    if spot.shape == "rectangle" and spot.width_px and spot.height_px:
        return rectangle(spot.center_x_px, spot.center_y_px, spot.width_px, spot.height_px)
    return circle(spot.center_x_px, spot.center_y_px, spot.radius_px)


def windows_of(count: Count) -> tuple[Window, ...]:
    """Return the hot spot, then the fields, as mitoses.geojson holds them.

    Parameters
    ----------
    count : Count
        A slide's.

    Returns
    -------
    tuple of Window
        In level-0 px; empty where there are no mitoses.
    """
    spot = count.hotspot
    outline = outline_of(spot)
    if outline is None or not count.mitoses:
        return ()
    words = f"{HOTSPOT}: {_mitoses(spot.mitoses)} in {spot.area_mm2:.2f} mm2"
    return Window(HOTSPOT, "hotspot", outline, words), *_fields(count)


def _fields(count: Count) -> tuple[Window, ...]:
    """Return the fields that hold mitoses; one that holds none could lie anywhere."""
    fields = count.fields
    if fields is None:
        return ()
    radius_px = 1000 * fields.diameter_mm / count.mpp / 2
    return tuple(
        Window(FIELD, f"field {k}", circle(x, y, radius_px), f"{FIELD} {k}: {_mitoses(n)}")
        for k, ((x, y), n) in enumerate(zip(fields.centers_px, fields.counts, strict=True), start=1)
        if n
    )


def _mitoses(number: int) -> str:
    return pluralize(number, "mitosis", "mitoses")
