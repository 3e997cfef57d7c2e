"""How stable the place of a window is: where else it could lie with as many mitoses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.windows import Shape, Window, counts_at
from wsi_minugan.geometry import UM2_PER_MM2

FloatArray = NDArray[np.float64]
_STEPS = 32
"""Steps of the raster for each width of the window."""


@dataclass(frozen=True)
class Stability:
    """Where else a window could lie.

    Attributes
    ----------
    least : int
        A window must hold so many points to be as good.
    places : int
        Number of separate parts of the area where the centre of such a window can lie.
    area_mm2 : float
        Size of that area, mm2.
    farthest_mm : float
        Greatest distance of such a centre from that of the window that was found, mm.
    """

    least: int
    places: int
    area_mm2: float
    farthest_mm: float


def stability_of(points_px: FloatArray, shape: Shape, window: Window, least: int, mpp: float) -> Stability:
    """Return where else a window with at least so many points could lie.

    All places on a raster are tried. Its step is 1/32 of the window's shorter side.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    shape : Shape
        Shape of the window, level-0 px.
    window : Window
        The window that was found, which distances are measured from.
    least : int
        Number of mitoses from which on a window is as good.
    mpp : float
        um per level-0 pixel.

    Returns
    -------
    Stability
        How many separate places there are, their area, and how far away the farthest is.
    """
    size = np.array([shape.width_px, shape.height_px])
    step = size.min() / _STEPS
    low = points_px.min(axis=0) - size / 2
    high = points_px.max(axis=0) + size / 2
    x, y = (np.arange(low[k], high[k] + step, step) for k in (0, 1))
    places, cells, farthest = _part_of(counts_at(points_px, shape, x, y) >= least, x, y, window)
    return Stability(least, places, cells * (step * mpp) ** 2 / UM2_PER_MM2, farthest * mpp / 1000)


def _part_of(good: NDArray[np.bool_], x: FloatArray, y: FloatArray, window: Window) -> tuple[int, int, float]:
    rows, columns = np.nonzero(good)
    if len(rows) == 0:
        return 0, 0, 0.0
    count, _ = cv2.connectedComponents(good.astype(np.uint8), connectivity=8)
    farthest = np.hypot(x[columns] - window.x_px, y[rows] - window.y_px).max()
    return count - 1, len(rows), float(farthest)
