"""Pictures for the browser: tiles of the slide and of its masks, and crops around mitoses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.segmentation.masks import layout, reading
from wsi_minugan.slides.analysis import AnalysisView, reduced
from wsi_minugan.slides.reader import SlideReader

TILE_PX = 512
CROP_PX = 256
"""Side of a gallery's picture, analysis px: 64 um."""

_QUALITY = 90
_ALPHA = 150
_COLOURS = {
    # Okabe and Ito's blue and yellow: red and green are the same to one man in twelve.
    "classes": {1: (0, 114, 178, _ALPHA), 2: (240, 228, 66, 255)},
    "coverage": {1: (86, 180, 233, 70)},
}


def max_level(width_px: int, height_px: int) -> int:
    """Return the number of the finest level of a pyramid that halves down to one pixel, as OpenSeadragon counts.

    Parameters
    ----------
    width_px, height_px : int
        Size of the slide.

    Returns
    -------
    int
        0 for a single pixel.

    Examples
    --------
    >>> max_level(40000, 30000)
    16
    """
    return math.ceil(math.log2(max(width_px, height_px, 1)))


def slide_tile(reader: SlideReader, level: int, column: int, row: int) -> bytes:
    """Return a tile of the slide as JPEG.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    level : int
        0 is one pixel, `max_level` the slide itself.
    column, row : int
        Which tile.

    Returns
    -------
    bytes
        A JPEG file.

    Raises
    ------
    InputError
        If there is no such tile.
    TileUnreadableError
        If it does not decode.
    """
    info = reader.info
    finest = max_level(info.width_px, info.height_px)
    if not 0 <= level <= finest:
        raise InputError(f"The slide has no level {level}.")
    factor = 2.0 ** (finest - level)
    size = (math.ceil(info.width_px / factor), math.ceil(info.height_px / factor))
    box = _tile_box(size, column, row)
    return jpeg(reduced(reader, factor, box.width_px, box.height_px, (box.x_px, box.y_px)))


def _tile_box(size: tuple[int, int], column: int, row: int) -> Box:
    """Return a tile's box in its level, which is ``(width, height)`` px large."""
    whole = Box(0, 0, size[1], size[0])
    box = Box(row * TILE_PX, column * TILE_PX, TILE_PX, TILE_PX).clipped(whole)
    if min(column, row) < 0 or 0 in {box.width_px, box.height_px}:
        raise InputError(f"The level has no tile {column}, {row}.")
    return box


def mask_tile(store: Path, name: str, frame: Frame, level: int, column: int, row: int) -> bytes:
    """Return a tile of a mask as PNG, clear where there is nothing.

    Parameters
    ----------
    store : Path
        masks.zarr.
    name : {"classes", "coverage", "mitosis_score"}
        Which mask.
    frame : Frame
        The slide's analysis frame.
    level : int
        0 is the coarsest of the store.
    column, row : int
        Which tile.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    InputError
        If there is no such tile.
    """
    shapes = layout.level_shapes(frame)
    if not 0 <= level < len(shapes):
        raise InputError(f"The masks have no level {level}.")
    at = len(shapes) - 1 - level
    h, w = shapes[at]
    values = reading.read_part(store, name, at, _tile_box((w, h), column, row))
    return png(coloured(name, values))


def coloured(name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a mask as a picture ``(h, w, 4)``: RGB and opacity.

    Parameters
    ----------
    name : {"classes", "coverage", "mitosis_score"}
        Which mask.
    values : ndarray, shape (h, w)
        Part of it.

    Returns
    -------
    ndarray of uint8, shape (h, w, 4)
        RGB and opacity.
    """
    table = np.zeros((256, 4), np.uint8)
    if name == "mitosis_score":
        heat = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)
        table[:, :3] = heat[:, 0, ::-1]
        table[:, 3] = np.minimum(255, 2 * np.arange(256))
    for value, colour in _COLOURS.get(name, {}).items():
        table[value] = colour
    picture: NDArray[np.uint8] = table[np.minimum(values, 255).astype(np.uint8)]
    return picture


def crop(reader: SlideReader, frame: Frame, x_px: float, y_px: float) -> bytes:
    """Return the surroundings of a place (level-0 px) at the model's resolution as JPEG.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.
    x_px, y_px : float
        The place, level-0 px.

    Returns
    -------
    bytes
        A JPEG file.

    Raises
    ------
    InputError
        If the place is not on the slide.
    """
    if not (0 <= x_px <= frame.level0_width_px and 0 <= y_px <= frame.level0_height_px):
        raise InputError(f"{x_px:g}, {y_px:g} is not on the slide.")
    return jpeg(crop_pixels(reader, frame, x_px, y_px))


def crop_pixels(reader: SlideReader, frame: Frame, x_px: float, y_px: float) -> NDArray[np.uint8]:
    """Return the surroundings of a place (level-0 px) as RGB, ``(CROP_PX, CROP_PX, 3)``, white outside of the slide.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.
    x_px, y_px : float
        The place, level-0 px.

    Returns
    -------
    ndarray of uint8, shape (CROP_PX, CROP_PX, 3)
        RGB at the model's resolution.
    """
    x, y = (round(v / frame.scale) - CROP_PX // 2 for v in (x_px, y_px))
    return AnalysisView(reader, frame).read(Box(y, x, CROP_PX, CROP_PX))


def jpeg(rgb: NDArray[np.uint8], quality: int = _QUALITY) -> bytes:
    """Return an RGB picture as JPEG with its colours at full resolution: chromatin is told by them.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (h, w, 3)
        The picture.
    quality : int
        JPEG's, 1 to 100.

    Returns
    -------
    bytes
        A JPEG file.
    """
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), options)
    return bytes(data.tobytes())


def unreadable_tile() -> bytes:
    """Return the tile that stands for one that does not decode: grey, with a cross.

    Returns
    -------
    bytes
        A JPEG file.
    """
    grey = np.full((TILE_PX, TILE_PX, 3), 128, np.uint8)
    cv2.line(grey, (0, 0), (TILE_PX, TILE_PX), (90, 90, 90), 3)
    cv2.line(grey, (0, TILE_PX), (TILE_PX, 0), (90, 90, 90), 3)
    return jpeg(grey)


def png(rgba: NDArray[np.uint8]) -> bytes:
    """Return a picture with opacity as PNG.

    Parameters
    ----------
    rgba : ndarray of uint8, shape (h, w, 4)
        The picture.

    Returns
    -------
    bytes
        A PNG file.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    return bytes(data.tobytes())
