"""Where counting takes place: regions drawn on a slide, and the raster of what was analysed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.geometry import UM2_PER_MM2

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class TissueRaster:
    """Square cells over a slide, and which of them were analysed.

    Attributes
    ----------
    analysed : ndarray of bool, shape (rows, columns)
        What was analysed: tissue and a margin. Cell (r, c) covers level-0 pixels ``[r*s, (r+1)*s) x [c*s, (c+1)*s)``.
    side_px : float
        Side s of a cell, level-0 px.
    width_px, height_px : float
        The slide's size, which cuts the last cells.
    tissue : ndarray of bool, shape (rows, columns), optional
        Tissue alone, without the margin; None where all that was analysed counts as tissue.
    """

    analysed: BoolArray
    side_px: float
    width_px: float
    height_px: float
    tissue: BoolArray | None = None

    @property
    def counted(self) -> BoolArray:
        """The cells that count as tissue in areas.

        Returns
        -------
        ndarray of bool, shape (rows, columns)
            Tissue, or all that was analysed where tissue is not known apart.
        """
        return self.analysed if self.tissue is None else self.tissue

    def share(self, circle: bool, width_px: float, height_px: float, x_px: float, y_px: float) -> float:
        """Return the share of a window that was analysed, by the centres of cells.

        Parameters
        ----------
        circle : bool
            Whether the window is a circle of diameter `width_px`.
        width_px, height_px : float
            Size of the window, level-0 px.
        x_px, y_px : float
            Its centre, level-0 px.

        Returns
        -------
        float
            0 to 1. What lies outside of the slide was not analysed.
        """
        s = self.side_px
        rows, columns = (
            np.arange(int((c - size / 2) // s) - 1, int((c + size / 2) // s) + 2)
            for c, size in ((y_px, height_px), (x_px, width_px))
        )
        dy, dx = np.abs((rows + 0.5) * s - y_px)[:, None], np.abs((columns + 0.5) * s - x_px)[None]
        inside = (
            dx**2 + dy**2 <= (width_px / 2) ** 2 if circle else (dx <= width_px / 2) & (dy <= height_px / 2)
        )
        h, w = self.analysed.shape
        r, c = (rows >= 0) & (rows < h), (columns >= 0) & (columns < w)
        found = self.analysed[np.ix_(rows[r], columns[c])] & inside[np.ix_(r, c)]
        return round(float(found.sum() / max(1, inside.sum())), 6)

    def part(self, low_px: FloatArray, high_px: FloatArray) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Return the cells within a box, and their centres' x and y, level-0 px.

        Parameters
        ----------
        low_px, high_px : ndarray of float, shape (2,)
            x, y of two corners of the box, level-0 px.

        Returns
        -------
        cells : ndarray of bool, shape (rows, columns)
            Which cells were analysed.
        x_px, y_px : ndarrays of float, shapes (columns,), (rows,)
            Centres of the cells.
        """
        (left, top), (right, bottom) = ((int(v // self.side_px) for v in c) for c in (low_px, high_px))
        h, w = self.analysed.shape
        rows = np.arange(max(0, top), min(h, bottom + 1))
        columns = np.arange(max(0, left), min(w, right + 1))
        cells = self.analysed[np.ix_(rows, columns)]
        return cells, (columns + 0.5) * self.side_px, (rows + 0.5) * self.side_px

    def area_mm2(self, mpp: float, within: shapely.Geometry | None = None) -> float:
        """Return the area of the tissue, exactly, cut at the slide's edge and at a region's.

        Parameters
        ----------
        mpp : float
            um per level-0 pixel.
        within : shapely geometry, optional
            The region, level-0 px; all of the slide where there is none.

        Returns
        -------
        float
            Area in mm2.

        Examples
        --------
        >>> raster = TissueRaster(np.ones((2, 2), bool), side_px=1000, width_px=2000, height_px=1500)
        >>> raster.area_mm2(mpp=0.5)
        0.75
        """
        s, cells = self.side_px, self.counted
        heights = np.clip(self.height_px - np.arange(cells.shape[0]) * s, 0, s)
        widths = np.clip(self.width_px - np.arange(cells.shape[1]) * s, 0, s)
        if within is None:
            return float(heights @ cells @ widths) * mpp**2 / UM2_PER_MM2
        whole, cut = covered_cells(within, cells.shape, s)
        area = float(heights @ (cells & whole) @ widths)
        rows, columns = np.nonzero(cells & cut)
        boxes = shapely.box(columns * s, rows * s, columns * s + widths[columns], rows * s + heights[rows])
        area += float(shapely.area(shapely.intersection(boxes, within)).sum())
        return area * mpp**2 / UM2_PER_MM2

    def within(self, region: shapely.Geometry) -> TissueRaster:
        """Return the raster with only those cells analysed whose centres lie in a region; areas are still cut exactly.

        Parameters
        ----------
        region : shapely geometry
            In level-0 pixels of the slide.

        Returns
        -------
        TissueRaster
            Of the same size.
        """
        inside = centres_in(region, self.analysed.shape, self.side_px)
        return replace(self, analysed=self.analysed & inside, tissue=self.counted)


def covered_cells(
    region: shapely.Geometry, shape: tuple[int, int], side_px: float
) -> tuple[BoolArray, BoolArray]:
    """Return which cells of a raster lie in a region whole, and which in part.

    Parameters
    ----------
    region : shapely geometry
        Polygons in the px that `side_px` is given in. The raster's first cell begins at (0, 0).
    shape : tuple of int
        Rows and columns of the raster.
    side_px : float
        Side of a cell, px.

    Returns
    -------
    whole, cut : ndarrays of bool, shape (rows, columns)
        Cells that lie in the region, and cells that its border crosses.
    """
    whole, cut = np.zeros(shape, bool), np.zeros(shape, bool)
    shapely.prepare(region)
    pending = [(0, 0, _power(max(shape)))]
    while pending:
        row, column, size = pending.pop()
        if row >= shape[0] or column >= shape[1]:
            continue
        box = shapely.box(column * side_px, row * side_px, (column + size) * side_px, (row + size) * side_px)
        part = slice(row, row + size), slice(column, column + size)
        if shapely.covers(region, box):
            whole[part] = True
        elif shapely.intersects(region, box):
            if size == 1:
                cut[part] = True
            else:
                half = size // 2
                pending += [(row + a, column + b, half) for a in (0, half) for b in (0, half)]
    return whole, cut


def _power(value: int) -> int:
    return 1 << max(0, math.ceil(math.log2(max(1, value))))


def centres_in(region: shapely.Geometry, shape: tuple[int, int], side_px: float) -> BoolArray:
    """Return which cells of a raster have their centres in a region, or on its border.

    Parameters
    ----------
    region : shapely geometry
        Polygons in the px that `side_px` is given in. The raster's first cell begins at (0, 0).
    shape : tuple of int
        Rows and columns of the raster.
    side_px : float
        Side of a cell, px.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True where a cell's centre lies in the region.
    """
    whole, cut = covered_cells(region, shape, side_px)
    rows, columns = np.nonzero(cut)
    inside = shapely.intersects_xy(region, (columns + 0.5) * side_px, (rows + 0.5) * side_px)
    whole[rows[inside], columns[inside]] = True
    return whole


def points_in(region: shapely.Geometry, points_px: FloatArray) -> BoolArray:
    """Return which points lie in a region or on its border.

    Parameters
    ----------
    region : shapely geometry
        Polygons, in the frame of the points.
    points_px : ndarray of float, shape (n, 2)
        x, y of the points.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for each point in the region.
    """
    points = np.reshape(points_px, (-1, 2))
    shapely.prepare(region)
    return np.asarray(shapely.intersects_xy(region, points[:, 0], points[:, 1]), np.bool_)


def allowed_region(
    region: shapely.Geometry | None, exclude: shapely.Geometry | None, width_px: float, height_px: float
) -> shapely.Geometry | None:
    """Return what is counted: the region, or the slide, less what is excluded; None where that is all of the slide.

    Parameters
    ----------
    region, exclude : shapely geometry or None
        Drawn by the user, level-0 px.
    width_px, height_px : float
        Size of the slide, level-0 px.

    Returns
    -------
    shapely geometry or None
        What is counted, in level-0 px. None for the whole slide.
    """
    if region is None and exclude is None:
        return None
    found = shapely.box(0, 0, width_px, height_px) if region is None else region
    return found if exclude is None else shapely.difference(found, exclude)
