"""One offline page of a slide to send by post: the hot spot's pixels, a gallery of its mitoses, outlines, and the count in words."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan import __version__
from wsi_minugan.counting.models import Count
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Frame
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.pixels import frame_of
from wsi_minugan.review.result import Result, score_of
from wsi_minugan.review.store import VERDICT, Saved
from wsi_minugan.slides.analysis import reduced
from wsi_minugan.slides.reader import SlideReader
from wsi_minugan.viewer.tiles import CROP_PX, crop_pixels, jpeg

HOTSPOT_PX = 2000
"""Side of the hot spot's picture: about 1 MB, which every mailbox takes."""

MOST_PICTURES = 240
_QUALITY = 85
_MARGIN = 1.04


@dataclass(frozen=True)
class Cell:
    """A mitosis in the gallery.

    Attributes
    ----------
    picture : str
        JPEG as a data URL.
    outlines : tuple of str
        Points of an SVG polygon for each part, px of the picture.
    words, state : str
        What stands below it, and open, accepted, rejected or added.
    """

    picture: str
    outlines: tuple[str, ...]
    words: str
    state: str


@dataclass(frozen=True)
class Spot:
    """The hot spot's picture.

    Attributes
    ----------
    picture : str
        JPEG as a data URL.
    side_px : int
        Its side.
    mpp : float
        um per px of it.
    width_px, height_px : float
        The hot spot's size in it (a circle's diameter); its centre is the picture's.
    circle : bool
        Whether it is a circle, or a rectangle.
    outlines : tuple of (str, str)
        State and points of each mitosis in it.
    """

    picture: str
    side_px: int
    mpp: float
    width_px: float
    height_px: float
    circle: bool
    outlines: tuple[tuple[str, str], ...]


def export_page(path: Path, result: Result, reader: SlideReader, saved: Saved | None) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        HTML file to write.
    result : Result
        The slide.
    reader : SlideReader
        Its pixels.
    saved : Saved, optional
        The review to show in place of the run's own mitoses.

    Raises
    ------
    InputError
        If the name does not end in .html.
    OutputError
        If it cannot be written.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"{path} must end in .html. Check --export.")
    objects = saved.objects if saved is not None else result.mitoses
    count = saved.file.after if saved is not None else result.count
    frame = frame_of(result.sealed)
    shown = sorted(objects, key=lambda o: (-score_of(o), o.centre_px))[:MOST_PICTURES]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsi_minugan.viewer"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = resources.files("wsi_minugan.viewer").joinpath("templates", "export.css").read_text("utf-8")
    html = environment.get_template("export.html.j2").render(
        sealed=result.sealed,
        count=count,
        review=saved.file if saved is not None else None,
        spot=_spot(reader, count, objects),
        cells=[_cell(reader, frame, o) for o in shown],
        total=len(objects),
        crop_px=CROP_PX,
        crop_um=CROP_PX * frame.mpp,
        version=__version__,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
    )
    write_text(path, html, parents=True)


def _spot(reader: SlideReader, count: Count, objects: Sequence[Marked]) -> Spot | None:
    spot = count.hotspot
    if spot.center_x_px is None or spot.center_y_px is None:
        return None
    reach = spot.radius_px * _MARGIN
    factor = max(1.0, 2 * reach / HOTSPOT_PX)
    side = round(2 * reach / factor)
    corner = (round((spot.center_x_px - reach) / factor), round((spot.center_y_px - reach) / factor))
    pixels = reduced(reader, factor, side, side, corner)
    origin = np.array(corner, np.float64) * factor
    inside = [o for o in objects if np.hypot(*(np.array(o.centre_px) - origin - reach)) <= spot.radius_px]
    width, height = (v or 2 * spot.radius_px for v in (spot.width_px, spot.height_px))
    outlines = tuple((_state(o), ring) for o in inside for ring in _rings(o.shape, origin, 1 / factor))
    return Spot(
        _data_url(pixels),
        side,
        count.mpp * factor,
        width / factor,
        height / factor,
        spot.shape == "circle",
        outlines,
    )


def _cell(reader: SlideReader, frame: Frame, found: Marked) -> Cell:
    x, y = found.centre_px
    # The crop's corner lies on a whole analysis pixel; see `crop_pixels`.
    corner = np.array([round(v / frame.scale) - CROP_PX // 2 for v in (x, y)]) * frame.scale
    state = _state(found)
    words = "added" if state == "added" else f"{score_of(found):.2f}"
    rings = tuple(_rings(found.shape, corner, 1 / frame.scale))
    return Cell(_data_url(crop_pixels(reader, frame, x, y)), rings, words, state)


def _state(found: Marked) -> str:
    said = found.metadata.get(VERDICT, "")
    return said if said in {"accepted", "rejected", "added"} else "open" if found.counts else "rejected"


def _rings(shape: shapely.Geometry, origin: NDArray[np.float64], scale: float) -> list[str]:
    """Return the points of SVG polygons: the outer rings of a shape, moved and scaled."""
    parts = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon"]
    rings = [(shapely.get_coordinates(p.exterior) - origin) * scale for p in parts]
    return [" ".join(f"{x:.1f},{y:.1f}" for x, y in ring) for ring in rings]


def _data_url(rgb: NDArray[np.uint8]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(rgb, _QUALITY)).decode("ascii")
