"""Holes: tiles without data, and stretches of one value where tissue must be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.tissue import TissueMask

LEAST_CELLS = 16
"""Cells (8 um) of one value that make a hole: tissue of that size always varies, however strongly it was compressed."""

_ENCLOSED = 0.75
_RIM_CELLS = 3
_NEAR_BLACK = 8
_SQUARE_PX = 32


class WatchedView:
    """A slide at the model's resolution, whose holes are told instead of analysed.

    Parameters
    ----------
    view : AnalysisView
        The slide.
    tissue : TissueMask
        Its tissue.
    path : Path
        The slide, for messages.
    """

    def __init__(self, view: AnalysisView, tissue: TissueMask, path: Path) -> None:
        self._view = view
        self._tissue = tissue
        self._path = path

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return a region; see `AnalysisView.read` and `refuse_blank_parts`.

        Parameters
        ----------
        box : Box
            Analysis px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.

        Raises
        ------
        TileUnreadableError
            If a part is blank where tissue was seen.
        """
        pixels = self._view.read(box)
        refuse_blank_parts(pixels, box, self._tissue, self._path)
        return pixels


def refuse_blank_parts(pixels: NDArray[np.uint8], box: Box, tissue: TissueMask, path: Path) -> None:
    """Refuse pixels that have one value where tissue was seen on a lower level.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        What was read.
    box : Box
        Where, in analysis pixels.
    tissue : TissueMask
        The slide's tissue; nothing is refused where it was not looked for.
    path : Path
        The slide, for the message.

    Raises
    ------
    TileUnreadableError
        If a part as large as `LEAST_CELLS` has one value.
    """
    if tissue.seen is None:
        return
    s = tissue.px_per_cell
    top, left = max(0, -(-box.y_px // s)), max(0, -(-box.x_px // s))
    bottom, right = min(tissue.seen.shape[0], box.y_end_px // s), min(tissue.seen.shape[1], box.x_end_px // s)
    if bottom <= top or right <= left:
        return
    seen = tissue.seen[top:bottom, left:right]
    if np.count_nonzero(seen) < LEAST_CELLS:
        return
    inside = pixels[top * s - box.y_px : bottom * s - box.y_px, left * s - box.x_px : right * s - box.x_px]
    flat = seen & _is_flat(inside.reshape(bottom - top, s, right - left, s, 3))
    if np.count_nonzero(flat) >= LEAST_CELLS:
        row, column = np.argwhere(flat)[0]
        raise TileUnreadableError(
            f"{path}: level 0 has one value at x {(left + column) * s}, y {(top + row) * s} (analysis pixels) and around, where a lower "
            "level shows tissue: tiles are missing or were emptied. Copy or scan the slide again, or leave them out with --tolerate-tiles."
        )


def _is_flat(cells: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which cells have one value; shapes ``(rows, h, columns, w, 3)`` in, ``(rows, columns)`` out.

    Most cells vary, and a few of their pixels show it: only the others are looked at pixel by pixel.
    """
    step = max(1, cells.shape[1] // 4)
    found = (cells[:, ::step, :, ::step] == cells[:, :1, :, :1]).all(axis=(1, 3, 4))
    for row, column in np.argwhere(found):
        found[row, column] = (cells[row, :, column] == cells[row, 0, column, 0]).all()
    return np.asarray(found, np.bool_)


def is_blank_tile(pixels: NDArray[np.uint8], seen: NDArray[np.bool_]) -> bool:
    """Return whether a good part of a tile has one value where a lower level shows tissue.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        The tile.
    seen : ndarray of bool, shape (rows, columns)
        The cells that it covers, true where these show tissue's colour.

    Returns
    -------
    bool
        False for a tile of glass.
    """
    flat = flat_parts(pixels)
    if flat.size == 0 or seen.size == 0:
        return False
    size = (flat.shape[1], flat.shape[0])
    tissue = cv2.resize(seen.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    return bool(np.count_nonzero(flat & tissue) >= min(LEAST_CELLS, flat.size))


def flat_parts(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which squares of 32 px (less, in small pictures) have one value; ``(h, w, 3)`` in, ``(h // 32, w // 32)`` out.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    ndarray of bool, shape (h // 32, w // 32)
        One value for each square.
    """
    s = min(_SQUARE_PX, *pixels.shape[:2])
    h, w = pixels.shape[0] // s, pixels.shape[1] // s
    return _is_flat(pixels[: h * s, : w * s].reshape(h, s, w, s, 3))


def missing_cells(missing: list[Box], scale: float, tissue: TissueMask) -> NDArray[np.bool_]:
    """Return the cells of a mask that lie in tiles (boxes of level-0 pixels) without data.

    Parameters
    ----------
    missing : list of Box
        Tiles without data, level-0 px.
    scale : float
        Level-0 pixels per analysis pixel.
    tissue : TissueMask
        It gives the shape.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True where a tile is missing.
    """
    found = np.zeros(tissue.mask.shape, bool)
    side = tissue.px_per_cell * scale
    for box in missing:
        rows = slice(int(np.ceil(box.y_px / side)), int(box.y_end_px / side))
        found[rows, int(np.ceil(box.x_px / side)) : int(box.x_end_px / side)] = True
    return found


def missing_in_tissue(missing: list[Box], scale: float, tissue: TissueMask) -> list[Box]:
    """Return those tiles without data in which tissue was seen on a lower level, or which tissue encloses.

    A slide may well be without tiles where there is only glass. Smoothing carries tissue a little way into them, so a rim does not count.

    Parameters
    ----------
    missing : list of Box
        Tiles without data, level-0 px.
    scale : float
        Level-0 pixels per analysis pixel.
    tissue : TissueMask
        The slide's tissue.

    Returns
    -------
    list of Box
        Level-0 px.
    """
    if tissue.stained is None or not missing:
        return []
    enclosed = enclosed_by(missing_cells(missing, scale, tissue), tissue.stained)
    side, found = tissue.px_per_cell * scale, []
    for box in missing:
        rows, columns = (_core(a, b, side) for a, b in ((box.y_px, box.y_end_px), (box.x_px, box.x_end_px)))
        if tissue.stained[rows, columns].any() or enclosed[rows, columns].any():
            found.append(box)
    return found


def _core(start: int, end: int, side: float) -> slice:
    """Return the cells of a tile without its rim; the middle one of a small tile."""
    first, last = int(start / side) + _RIM_CELLS, int(end / side) - _RIM_CELLS
    if last <= first:
        first = int((start + end) / 2 / side)
        last = first + 1
    return slice(first, last)


def enclosed_by(holes: NDArray[np.bool_], stained: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return those pieces of `holes` that have tissue nearly all around; both of one shape.

    Parameters
    ----------
    holes : ndarray of bool, shape (h, w)
        What may be enclosed.
    stained : ndarray of bool, shape (h, w)
        Tissue.

    Returns
    -------
    ndarray of bool, shape (h, w)
        Part of `holes`.
    """
    count, labels = cv2.connectedComponents(holes.astype(np.uint8), connectivity=8)
    if count == 1:
        return np.zeros(holes.shape, bool)
    grown = cv2.dilate(labels.astype(np.float32), np.ones((7, 7), np.uint8)).astype(np.int32)
    ring = (grown > 0) & (labels == 0)
    around, tissue = (np.bincount(grown[part], minlength=count) for part in (ring, ring & stained))
    cells = np.bincount(labels.ravel(), minlength=count)
    keep = (tissue >= _ENCLOSED * np.maximum(around, 1)) & (cells >= LEAST_CELLS)
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def black_holes(picture: NDArray[np.uint8], stained: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pieces of pure black in a low-resolution picture, ``(h, w, 3)``, that tissue encloses, ``(h, w)``.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB.
    stained : ndarray of bool, shape (h, w)
        Tissue.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True in such a piece.
    """
    return enclosed_by(picture.max(axis=2) <= _NEAR_BLACK, stained)
