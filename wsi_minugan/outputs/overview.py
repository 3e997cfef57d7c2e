"""Pictures of a whole slide: tissue found, heat map of mitoses, hot spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.outputs.atomic import write_bytes

LONGEST_PX = 1600
_HEAT_UM = 250.0
_HEAT_STEP = 8
_MITOSIS, _HOTSPOT, _TISSUE, _RIM = (255, 255, 255), (255, 150, 0), (30, 90, 200), (0, 0, 0)
"""Told apart also by people who do not see red and green as others do; so is the heat map, from blue to yellow."""


@dataclass(frozen=True)
class Findings:
    """What is drawn over the slide, in level-0 px.

    Attributes
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses.
    hotspot : shapely Polygon or None
        Outline of the hot spot. None where there are no mitoses.
    mpp : float
        um per level-0 pixel; the heat map's spread is a length in um.
    """

    points_px: NDArray[np.float64]
    hotspot: shapely.Geometry | None
    mpp: float


def draw_overview(path: Path, thumb: NDArray[np.uint8], width_px: int, found: Findings) -> None:
    """Write the slide with a heat map of its mitoses, the mitoses, and the hot spot.

    Parameters
    ----------
    path : Path
        PNG to write.
    thumb : ndarray of uint8, shape (h, w, 3)
        RGB of the whole slide, reduced.
    width_px : int
        Width of the slide, level-0 px. It tells by how much `thumb` is reduced.
    found : Findings
        Mitoses and hot spot, level-0 px.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    factor = thumb.shape[1] / width_px
    picture = _with_heat(thumb, found.points_px * factor, _HEAT_UM / found.mpp * factor)
    for x, y in np.rint(found.points_px * factor * 16).astype(int):
        for colour, radius in ((_RIM, 4), (_MITOSIS, 2)):
            cv2.circle(picture, (int(x), int(y)), radius * 16, colour, -1, cv2.LINE_AA, 4)
    if found.hotspot is not None:
        ring = np.rint(shapely.get_coordinates(found.hotspot) * factor * 16).astype(np.int32)
        for colour, width in ((_RIM, 5), (_HOTSPOT, 3)):
            cv2.polylines(picture, [ring], True, colour, width, cv2.LINE_AA, 4)
    _write_png(path, picture)


def _with_heat(thumb: NDArray[np.uint8], points: NDArray[np.float64], sigma: float) -> NDArray[np.uint8]:
    if len(points) == 0:
        return thumb.copy()
    # A heat map is smooth: it is made small and enlarged, or a wide blur would take longer than the network.
    h, w = thumb.shape[:2]
    small = np.zeros((-(-h // _HEAT_STEP), -(-w // _HEAT_STEP)), np.float32)
    at = np.clip(points.astype(int), 0, [w - 1, h - 1]) // _HEAT_STEP
    np.add.at(small, (at[:, 1], at[:, 0]), 1.0)
    small = cv2.GaussianBlur(small, (0, 0), max(1.0, min(sigma, max(h, w) / 20) / _HEAT_STEP))
    heat = cv2.resize(small / small.max(), (w, h), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(
        cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB
    )
    opacity = 0.6 * np.clip(heat * 1.5 - 0.2, 0, 1)[..., None]
    blended: NDArray[np.uint8] = np.rint(thumb * (1 - opacity) + colours * opacity).astype(np.uint8)
    return blended


def draw_tissue(path: Path, thumb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Write the slide with the outline of the tissue that would be analysed.

    Parameters
    ----------
    path : Path
        PNG to write.
    thumb : ndarray of uint8, shape (h, w, 3)
        RGB of the whole slide, reduced.
    mask : ndarray of bool, shape (rows, columns)
        Where the tissue is, over the whole slide, at any resolution.

    Raises
    ------
    OutputError
        If the picture cannot be written.
    """
    size = (thumb.shape[1], thumb.shape[0])
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    picture = np.where(large[..., None] > 0, thumb, (thumb * 0.75).astype(np.uint8))
    _write_png(path, cv2.drawContours(picture.copy(), contours, -1, _TISSUE, 2))


def _write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    write_bytes(path, data.tobytes())
