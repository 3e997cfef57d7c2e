"""Mitoses per mm2: over tissue, in parts of a slide, and as a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.windows import Shape, counts_at, shares_of
from wsi_minugan.geometry import UM2_PER_MM2

FloatArray = NDArray[np.float64]
LEAST_SHARE = 0.1
"""Windows with less tissue than this have no density: a mitosis at the rim would weigh too much."""
_LEAST_TILE = 0.3
MAP_STEP = 8
"""The map has one value for so many cells of the raster along each axis."""


def per_mm2(count: float, area_mm2: float | None) -> float | None:
    """Return a density, or None where there is no area.

    Parameters
    ----------
    count : float
        Number of mitoses.
    area_mm2 : float or None
        Area that they lie in, mm2. None where it is not known.

    Returns
    -------
    float or None
        Mitoses per mm2. None also for an area of 0.

    Examples
    --------
    >>> per_mm2(7, 2.0)
    3.5
    >>> per_mm2(7, None) is None
    True
    """
    return count / area_mm2 if area_mm2 else None


def tiles_of(points_px: FloatArray, raster: TissueRaster, side_px: float, mpp: float) -> FloatArray:
    """Cut the slide into squares, and return the mitoses and the tissue of each.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    raster : TissueRaster
        What was analysed, and what of it is tissue.
    side_px : float
        Side of a square, level-0 px. Squares that are less than 30 % tissue are left out.
    mpp : float
        um per level-0 pixel.

    Returns
    -------
    ndarray of float, shape (m, 2)
        For each square the number of mitoses, and its tissue in mm2.
    """
    rows, columns = np.nonzero(raster.counted & raster.analysed)
    edges = [np.arange(0, size + side_px, side_px) for size in (raster.height_px, raster.width_px)]
    cells, _, _ = np.histogram2d((rows + 0.5) * raster.side_px, (columns + 0.5) * raster.side_px, edges)
    found, _, _ = np.histogram2d(points_px[:, 1], points_px[:, 0], edges)
    area = cells * (raster.side_px * mpp) ** 2 / UM2_PER_MM2
    kept = area >= _LEAST_TILE * (side_px * mpp) ** 2 / UM2_PER_MM2
    return np.stack([found[kept], area[kept]], axis=1)


def density_map(points_px: FloatArray, raster: TissueRaster, shape: Shape, mpp: float) -> NDArray[np.float32]:
    """Return the mitoses per mm2 of analysed area in windows all over the slide.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    raster : TissueRaster
        What was analysed.
    shape : Shape
        Window over which a density is taken, level-0 px.
    mpp : float
        um per level-0 pixel.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        Mitoses per mm2, one value for each square of `MAP_STEP` by `MAP_STEP` cells of the raster. It is the density in the window
        at the square's centre, and 0 where less than 10 % of that window was analysed.
    """
    rows, columns = (-(-n // MAP_STEP) for n in raster.analysed.shape)
    side = raster.side_px * MAP_STEP
    counts = counts_at(points_px, shape, (np.arange(columns) + 0.5) * side, (np.arange(rows) + 0.5) * side)
    padded = np.pad(
        raster.analysed,
        [(0, rows * MAP_STEP - raster.analysed.shape[0]), (0, columns * MAP_STEP - raster.analysed.shape[1])],
    )
    coarse = padded.reshape(rows, MAP_STEP, columns, MAP_STEP).mean(axis=(1, 3)) >= 0.5
    share = shares_of(coarse, shape, side)
    window_mm2 = (
        shape.width_px * shape.height_px * (np.pi / 4 if shape.circle else 1.0) * mpp**2 / UM2_PER_MM2
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(share >= LEAST_SHARE, counts / (share * window_mm2), 0.0)
    return np.asarray(found, np.float32)
