"""Where the tissue is, at low resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import NotBrightfieldError
from wsi_minugan.geometry import UM2_PER_MM2, Box, Frame
from wsi_minugan.slides.analysis import reduced
from wsi_minugan.slides.checks.stains import balanced, glass_of, ink_in
from wsi_minugan.slides.reader import SlideReader

CELL_PX = 32
"""Side of one cell of the mask in analysis pixels: 8 um at 0.25 um/px."""

MIN_CHROMA = 12
"""Least difference of colour channels (grey levels of 255) of stained tissue; glass and dust stay below it."""

MIN_ISLAND_CELLS = 40
"""Islands below 0.0026 mm2 are debris."""

MARGIN_CELLS = 2
"""Margin around tissue, so that no nucleus at its edge is lost; it is analysed, but is no tissue in areas."""

_MOST_INK = 0.8
"""Share of what is coloured that may be ink."""

_BLACK, _BRIGHT = 40, 100
_LEAST_DARK, _LEAST_BRIGHT = 0.3, 0.1
"""Shares: of black in a dark field, and of what is bright in all colours in the rest of a slide that has black borders."""


@dataclass(frozen=True)
class TissueMask:
    """Cells that are analysed, and those of them that are tissue.

    Attributes
    ----------
    mask : ndarray of bool, shape (rows, columns)
        What is analysed: tissue and a margin. Cell (r, c) covers analysis pixels ``[r*s, (r+1)*s) x [c*s, (c+1)*s)``.
    px_per_cell : int
        Side s of a cell.
    width_px, height_px : int
        Size of the frame, which cuts the last cells.
    stained : ndarray of bool, shape (rows, columns), optional
        Tissue alone, without the margin of glass around it; None where all that is analysed counts as tissue.
    seen : ndarray of bool, shape (rows, columns), optional
        Cells whose own colour is that of tissue, without what was filled up; None where nothing was looked at.
    """

    mask: NDArray[np.bool_]
    px_per_cell: int
    width_px: int
    height_px: int
    stained: NDArray[np.bool_] | None = None
    seen: NDArray[np.bool_] | None = None

    @property
    def share(self) -> float:
        """Which share of the slide is tissue, 0 to 1.

        Returns
        -------
        float
            By cells.
        """
        return float((self.mask if self.stained is None else self.stained).mean())

    def area_mm2(self, mpp: float) -> float:
        """Return the area of the tissue, cut at the slide's edge; `mpp` is that of the analysis frame.

        Parameters
        ----------
        mpp : float
            um per analysis pixel.

        Returns
        -------
        float
            mm2.
        """
        s, tissue = self.px_per_cell, self.mask if self.stained is None else self.stained
        rows = np.minimum(s, self.height_px - np.arange(tissue.shape[0]) * s)
        columns = np.minimum(s, self.width_px - np.arange(tissue.shape[1]) * s)
        return float(rows @ tissue @ columns) * mpp**2 / UM2_PER_MM2

    def without(self, left_out: NDArray[np.bool_]) -> TissueMask:
        """Return the mask without some cells.

        Parameters
        ----------
        left_out : ndarray of bool, shape (rows, columns)
            The cells.

        Returns
        -------
        TissueMask
            Of the same size.
        """
        stained, seen = (None if m is None else m & ~left_out for m in (self.stained, self.seen))
        return replace(self, mask=self.mask & ~left_out, stained=stained, seen=seen)

    def any_in(self, box: Box) -> bool:
        """Return whether a box of analysis pixels meets tissue.

        Parameters
        ----------
        box : Box
            Analysis px.

        Returns
        -------
        bool
            One cell is enough.
        """
        return bool(self.mask[self.cells_of(box)].any())

    def cells_of(self, box: Box) -> tuple[slice, slice]:
        """Return the rows and columns of the cells that a box of analysis pixels meets.

        Parameters
        ----------
        box : Box
            Analysis px.

        Returns
        -------
        tuple of slice
            Rows, then columns.
        """
        s = self.px_per_cell
        rows = slice(max(0, box.y_px // s), max(0, -(-box.y_end_px // s)))
        return rows, slice(max(0, box.x_px // s), max(0, -(-box.x_end_px // s)))


def everything(frame: Frame) -> TissueMask:
    """Return a mask that leaves nothing out.

    Parameters
    ----------
    frame : Frame
        Analysis frame.

    Returns
    -------
    TissueMask
        Every cell is set.
    """
    shape = (-(-frame.height_px // CELL_PX), -(-frame.width_px // CELL_PX))
    return TissueMask(np.ones(shape, bool), CELL_PX, frame.width_px, frame.height_px)


def find_tissue(reader: SlideReader, frame: Frame) -> TissueMask:
    """Find stained tissue by its colour.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.

    Returns
    -------
    TissueMask
        Cells of `CELL_PX` analysis px.

    Raises
    ------
    NotBrightfieldError
        If the picture is dark where a slide is glass, as fluorescence is.
    """
    rows, columns = cells_of_frame(frame)
    return tissue_in(reduced(reader, CELL_PX * frame.scale, columns, rows), frame, reader.info.path)


def cells_of_frame(frame: Frame) -> tuple[int, int]:
    """Return the rows and columns of the mask of a frame.

    Parameters
    ----------
    frame : Frame
        Analysis frame.

    Returns
    -------
    tuple of int
        Rows and columns.
    """
    return -(-frame.height_px // CELL_PX), -(-frame.width_px // CELL_PX)


def tissue_in(picture: NDArray[np.uint8], frame: Frame, path: Path) -> TissueMask:
    """Find stained tissue in a picture that has one pixel for each cell of the mask.

    Parameters
    ----------
    picture : ndarray of uint8, shape (rows, columns, 3)
        The slide, RGB.
    frame : Frame
        Its analysis frame.
    path : Path
        The slide, for the message.

    Returns
    -------
    TissueMask
        Cells of `CELL_PX` analysis px.

    Raises
    ------
    NotBrightfieldError
        If the picture is dark where a slide is glass, as fluorescence is.
    """
    if is_dark_field(picture):
        raise NotBrightfieldError(
            f"{path} is dark where a slide is bright glass: fluorescence, or an empty scan. Only H&E in brightfield is read. "
            "If it is H&E on a black border, run it with --no-tissue."
        )
    stained, seen = _tissue_and_seen(picture)
    side = 2 * MARGIN_CELLS + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    mask = cv2.dilate(stained.astype(np.uint8), kernel).astype(bool)
    return TissueMask(mask, CELL_PX, frame.width_px, frame.height_px, stained, seen)


def is_dark_field(picture: NDArray[np.uint8]) -> bool:
    """Return whether a low-resolution picture ``(h, w, 3)`` is mostly black, and the rest nowhere bright in all colours.

    Scanners may paint black what they left out, but glass and stained tissue stay bright there.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    bool
        True for fluorescence and for an empty scan.
    """
    lit = picture.max(axis=2) > _BLACK
    bright = (picture.min(axis=2) > _BRIGHT).sum()
    return bool(lit.mean() < 1 - _LEAST_DARK and bright < _LEAST_BRIGHT * max(1, lit.sum()))


def tissue_of(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the tissue of a low-resolution picture, by its colour.

    The picture is balanced first, so that its glass is grey whatever the lamp. Eosin and haematoxylin are not grey. The threshold is half
    of Otsu's (1979) on the chroma of the smoothed picture, held above the noise of glass and below what pale tissue has. Pen marks are
    taken for glass, and small islands are dropped.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True in tissue.
    """
    return _tissue_and_seen(picture)[0]


def ink_of(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a low-resolution picture as if its glass had no tint, and where pen marks are in it.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    plain : ndarray of uint8, shape (h, w, 3)
        Without tint.
    ink : ndarray of bool, shape (h, w)
        True in pen marks.
    """
    plain = balanced(picture, glass_of(picture))
    ink = ink_in(plain)
    coloured = np.ptp(plain, axis=2) >= MIN_CHROMA
    if np.count_nonzero(ink & coloured) > _MOST_INK * np.count_nonzero(coloured):
        # Nothing but ink: that is how tissue of wrong colours looks, of which a look at its pixels tells.
        ink = np.zeros_like(ink)
    return plain, ink


def _tissue_and_seen(picture: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    plain, ink = ink_of(picture)
    plain = np.where(ink[..., None], np.uint8(255), plain)
    smooth = cv2.GaussianBlur(plain, (0, 0), 1.0)
    chroma = smooth.max(axis=2) - smooth.min(axis=2)
    otsu, _ = cv2.threshold(chroma, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    cut = min(max(MIN_CHROMA, otsu * 0.5), 2 * MIN_CHROMA)
    stained = ((chroma >= cut) & (smooth.max(axis=2) > _BLACK)).astype(np.uint8)
    closed = cv2.morphologyEx(stained, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    smallest = min(MIN_ISLAND_CELLS, max(1, picture.shape[0] * picture.shape[1] // 8))
    keep = np.zeros(count, bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= smallest
    found = np.asarray(keep[labels], np.bool_) & ~ink
    return found, found & (np.ptp(plain, axis=2) >= cut) & (plain.max(axis=2) > _BLACK)
