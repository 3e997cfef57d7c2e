"""Pictures for the eye that checks a count: the hot spot enlarged with its mitoses outlined, and a gallery of mitoses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.outputs.atomic import write_bytes

HOTSPOT_PX = 1200
TILE_PX, COLUMNS, MOST = 160, 8, 24
"""Side of a mitosis in the gallery, how many stand in a row, and the most that are shown."""

OUTLINE, SPOT, DARK = (255, 222, 0), (0, 150, 255), (0, 0, 0)
"""Yellow and blue on black: told apart by all, also on pink and violet."""

_QUALITY = 88
_FINE = 4  # fixed-point bits of OpenCV's coordinates
_NUMBERED = 60


@dataclass(frozen=True)
class Outlined:
    """A region with what is outlined in it.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        RGB of the region.
    outlines : sequence of ndarray of float, each of shape (n, 2)
        Corners x, y of each mitosis, in px of the picture; numbered from 1 in this order.
    window : ndarray of float, shape (m, 2)
        Corners x, y of the hot spot, in px of the picture.
    """

    pixels: NDArray[np.uint8]
    outlines: Sequence[NDArray[np.float64]]
    window: NDArray[np.float64]


def draw_hotspot(path: Path, found: Outlined) -> None:
    """Write the hot spot as a JPEG: its outline, its mitoses outlined, and their numbers where these are not too many.

    Parameters
    ----------
    path : Path
        JPEG to write.
    found : Outlined
        The hot spot's pixels, and outlines in their frame.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    picture = np.ascontiguousarray(found.pixels)
    window = [np.rint(found.window * 2**_FINE).astype(np.int32)]
    for colour, width in ((DARK, 5), (SPOT, 3)):
        cv2.polylines(picture, window, True, colour, width, cv2.LINE_AA, _FINE)
    rings = [np.rint(o * 2**_FINE).astype(np.int32) for o in found.outlines]
    for colour, width in ((DARK, 4), (OUTLINE, 2)):
        cv2.polylines(
            picture, rings, isClosed=True, color=colour, thickness=width, lineType=cv2.LINE_AA, shift=_FINE
        )
    if len(rings) <= _NUMBERED:
        for k, outline in enumerate(found.outlines, start=1):
            right, top = float(outline[:, 0].max()), float(outline[:, 1].min())
            _write_number(picture, k, (round(right) + 3, round(top) + 3))
    write_jpeg(path, picture)


def draw_gallery(path: Path, tiles: Sequence[NDArray[np.uint8]], labels: Sequence[str]) -> None:
    """Write mitoses side by side as a JPEG.

    Parameters
    ----------
    path : Path
        JPEG to write.
    tiles : sequence of ndarray of uint8, each of shape (TILE_PX, TILE_PX, 3)
        RGB, a mitosis in the middle of each; one at least.
    labels : sequence of str
        Words in each tile's corner, one for each tile.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    side = TILE_PX + 4
    sheet = np.full((rows * side - 4, columns * side - 4, 3), 255, np.uint8)
    for k, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        place = np.ascontiguousarray(tile)
        _write_number(place, label, (4, TILE_PX - 6))
        y, x = k // columns * side, k % columns * side
        sheet[y : y + TILE_PX, x : x + TILE_PX] = place
    write_jpeg(path, sheet)


def _write_number(picture: NDArray[np.uint8], text: object, at: tuple[int, int]) -> None:
    for colour, width in ((DARK, 4), ((255, 255, 255), 2)):
        cv2.putText(picture, str(text), at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, width, cv2.LINE_AA)


def write_jpeg(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write a picture as a JPEG.

    Parameters
    ----------
    path : Path
        JPEG to write.
    rgb : ndarray of uint8, shape (h, w, 3)
        RGB.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_bytes(path, data.tobytes())
