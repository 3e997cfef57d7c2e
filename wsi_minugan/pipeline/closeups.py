"""Pixels of a slide for those who check its count, and for the comparison with the training data."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.config import PATCH_PX
from wsi_minugan.geometry import Box, evenly
from wsi_minugan.minugan.sentinel import slide_figures
from wsi_minugan.outputs.closeups import HOTSPOT_PX, MOST, TILE_PX, Outlined, draw_gallery, draw_hotspot
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.reader import SlideReader

_TILE_UM = 40.0
_MARGIN = 0.025
_RIM_PX = 1.0
_STRIP_BYTES = 2**26
_SAMPLED = 48
"""Patches that a slide is compared with the training data by: enough for a median, and read in less than a second."""


def draw_closeups(
    reader: SlideReader,
    mpp: float,
    shapes: NDArray[np.object_],
    scores: NDArray[np.float64],
    spot: shapely.Geometry | None,
    folder: Path,
) -> None:
    """Write hotspot.jpg and gallery.jpg of a slide; neither where it has no mitoses.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    mpp : float
        um per level-0 pixel.
    shapes : ndarray of shapely geometries, shape (n,)
        The mitoses, level-0 px.
    scores : ndarray of float, shape (n,)
        Their scores, 0 to 1; the highest comes first.
    spot : shapely Polygon or None
        The hot spot's outline, level-0 px.
    folder : Path
        The slide's folder.
    """
    if spot is None or len(shapes) == 0:
        return
    places = shapely.get_coordinates(shapely.centroid(shapes))
    # A circle's outline has corners, and a mitosis may lie on its rim.
    inside = shapely.dwithin(shapely.points(places), spot, _RIM_PX)
    # Numbers are those of the gallery: the hot spot's mitoses first, each part by score.
    order = np.lexsort((-scores, ~inside))
    own = order[: int(inside.sum())]
    low, high = np.array(spot.bounds[:2]), np.array(spot.bounds[2:])
    margin = _MARGIN * (high - low).max()
    pixels, corner, factor = _region(reader, low - margin, high + margin)
    outlines = [
        (shapely.get_coordinates(shapely.get_exterior_ring(_largest(s))) - corner) / factor
        for s in shapes[own]
    ]
    window = (shapely.get_coordinates(spot) - corner) / factor
    draw_hotspot(folder / "hotspot.jpg", Outlined(pixels, outlines, window))
    shown = order[:MOST]
    tiles = [_tile(reader, places[k], mpp) for k in shown]
    labels = [f"{n}  {100 * scores[k]:.0f}" for n, k in enumerate(shown, start=1)]
    draw_gallery(folder / "gallery.jpg", tiles, labels)


def _largest(shape: shapely.Geometry) -> shapely.Geometry:
    return max(shapely.get_parts(shape), key=lambda part: part.area)


def _region(
    reader: SlideReader, low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """Return a rectangle of the slide, cut at its edges and reduced; the level-0 place of its corner; level-0 px per px."""
    size = np.array([reader.info.width_px, reader.info.height_px])
    x0, y0 = np.clip(np.floor(low), 0, size - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high), [x0 + 1, y0 + 1], size).astype(int).tolist()
    factor = max(1.0, max(x1 - x0, y1 - y0) / HOTSPOT_PX)
    levels = reader.info.levels
    index = max((k for k, lv in enumerate(levels) if lv.downsample <= factor * 1.01), default=0)
    down = levels[index].downsample
    width, height = max(1, round((x1 - x0) / factor)), max(1, round((y1 - y0) / factor))
    out = np.empty((height, width, 3), np.uint8)
    rows = max(1, int(_STRIP_BYTES / (3 * (x1 - x0) / down * factor / down)))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        box = _box(x0 / down, (y0 + top * factor) / down, x1 / down, (y0 + bottom * factor) / down)
        strip = reader.read_level(index, box)
        out[top:bottom] = cv2.resize(strip, (width, bottom - top), interpolation=cv2.INTER_AREA)
    return out, np.array([x0, y0], float), factor


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    x, y = math.floor(left), math.floor(top)
    return Box(y, x, max(1, round(bottom) - y), max(1, round(right) - x))


def _tile(reader: SlideReader, place: NDArray[np.float64], mpp: float) -> NDArray[np.uint8]:
    """Return the surroundings of a mitosis, 40 um, at level 0's resolution."""
    side = max(1, round(_TILE_UM / mpp))
    x, y = np.rint(place - side / 2).astype(int).tolist()
    pixels = reader.read_level(0, Box(y, x, side, side))
    return np.asarray(cv2.resize(pixels, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def sampled_figures(plan: SlidePlan, reader: SlideReader) -> dict[str, float]:
    """Return the figures of stain, focus and compression of a slide, from patches spread evenly over its tissue.

    Parameters
    ----------
    plan : SlidePlan
        The slide's plan.
    reader : SlideReader
        The open slide.

    Returns
    -------
    dict of str to float
        See `minugan.sentinel`; empty where no patch holds enough tissue.
    """
    patches = sorted(plan.patches_of(plan.frame.box))
    view = AnalysisView(reader, plan.frame)
    places = (plan.grid.box(*patches[k]) for k in evenly(len(patches), _SAMPLED))
    margin = (plan.grid.patch_px - PATCH_PX) // 2
    return slide_figures(view.read(Box(b.y_px + margin, b.x_px + margin, PATCH_PX, PATCH_PX)) for b in places)
