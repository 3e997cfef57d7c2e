"""Pixels in the analysis frame, whatever the slide's own resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box, Frame
from wsi_minugan.slides.reader import Level, SlideReader

_SUBPIXELS = 8
"""Sampling positions are rounded to 1/8 px, so that a pixel's weights do not depend on where a region starts."""


class AnalysisView:
    """A slide seen at the model's resolution.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.
    """

    def __init__(self, reader: SlideReader, frame: Frame) -> None:
        self._reader = reader
        self._frame = frame

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return a region of level 0, resampled with a triangular kernel where the frame has another resolution.

        Parameters
        ----------
        box : Box
            Region in analysis pixels; may reach outside the slide.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB, white outside. A pixel's value does not depend on the region it is read with.
        """
        if self._frame.scale == 1.0:
            return self._reader.read_level(0, box)
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        inside = box.clipped(self._frame.box)
        if inside.height_px and inside.width_px:
            out[inside.slices_within(box)] = self._resampled(inside)
        return out

    def _resampled(self, box: Box) -> NDArray[np.uint8]:
        scale = self._frame.scale
        rows, row_weights = _taps(box.y_px, box.height_px, scale, self._frame.level0_height_px)
        columns, column_weights = _taps(box.x_px, box.width_px, scale, self._frame.level0_width_px)
        source = Box(int(rows.min()), int(columns.min()), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
        pixels = self._reader.read_level(0, source)
        across = _weighted(pixels, columns - source.x_px, column_weights, axis=1)
        both = _weighted(across, rows - source.y_px, row_weights, axis=0)
        return np.clip(np.rint(both), 0, 255).astype(np.uint8)


def _taps(start: int, count: int, scale: float, limit: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return source indices and weights, each ``(count, taps)``, of a triangular (antialiasing) kernel."""
    half = max(1.0, scale)
    center = (np.arange(start, start + count, dtype=np.float64) + 0.5) * scale - 0.5
    center = np.round(center * _SUBPIXELS) / _SUBPIXELS
    reach = math.ceil(half)
    base = np.floor(center).astype(np.int64)
    index = base[:, None] + np.arange(-reach + 1, reach + 1)
    weight = np.maximum(0.0, 1.0 - np.abs(index - center[:, None]) / half)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.clip(index, 0, limit - 1), weight.astype(np.float32)


def _weighted(
    pixels: NDArray[np.generic], index: NDArray[np.int64], weight: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    shape = [1, 1, 1]
    shape[axis] = len(index)
    total: NDArray[np.float32] = np.zeros(1, np.float32)
    for tap in range(index.shape[1]):
        part: NDArray[np.float32] = np.take(pixels, index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
        total = part if tap == 0 else total + part
    return total


def thumbnail(
    reader: SlideReader, longest_px: int, levels: Sequence[Level] | None = None
) -> NDArray[np.uint8]:
    """Return the whole slide, its longer side at most `longest_px`; read in strips of bounded memory.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    longest_px : int
        Longer side of the picture.
    levels : sequence of Level, optional
        Its pyramid, as far as it is known which levels can be used.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.
    """
    info = reader.info
    factor = max(1.0, max(info.width_px, info.height_px) / longest_px)
    width, height = max(1, round(info.width_px / factor)), max(1, round(info.height_px / factor))
    return reduced(reader, factor, width, height, levels=levels)


def level_for(levels: Sequence[Level], factor: float) -> int:
    """Return the coarsest usable level that is fine enough for a picture reduced by `factor`.

    Parameters
    ----------
    levels : sequence of Level
        The pyramid, finest first.
    factor : float
        Level-0 pixels per pixel of the picture.

    Returns
    -------
    int
        0 where no other fits.
    """
    fitting = (k for k, lv in enumerate(levels) if lv.usable and lv.downsample <= factor * 1.01)
    return max(fitting, key=lambda k: levels[k].downsample, default=0)


def reduced(
    reader: SlideReader,
    factor: float,
    width_px: int,
    height_px: int,
    corner_px: tuple[int, int] | None = None,
    levels: Sequence[Level] | None = None,
) -> NDArray[np.uint8]:
    """Return the slide, or a part of it, reduced; read in strips of bounded memory.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    factor : float
        Level-0 pixels per pixel of the picture.
    width_px, height_px : int
        Size of the picture.
    corner_px : tuple of int, optional
        x, y of the picture's top left corner, in px of the reduced slide. The default is the slide's own corner.
    levels : sequence of Level, optional
        Its pyramid, as far as it is known which levels can be used.

    Returns
    -------
    ndarray of uint8, shape (height_px, width_px, 3)
        RGB.
    """
    levels = reader.info.levels if levels is None else levels
    index = level_for(levels, factor)
    level = levels[index]
    step = factor / level.downsample
    out = np.full((height_px, width_px, 3), 255, np.uint8)
    read_px = level.width_px if corner_px is None else width_px * step
    left, above = corner_px or (0, 0)
    rows = max(1, int(2**22 / max(1.0, read_px * step)))
    x0, x1 = _span(left, left + width_px, step)
    for top in range(0, height_px, rows):
        bottom = min(height_px, top + rows)
        y0, y1 = _span(above + top, above + bottom, step)
        strip = reader.read_level(index, Box(y0, x0, y1 - y0, x1 - x0))
        out[top:bottom] = cv2.resize(strip, (width_px, bottom - top), interpolation=cv2.INTER_AREA)
    return out


def _span(start_px: int, end_px: int, step: float) -> tuple[int, int]:
    """Return the first and the last pixel but one that reduced pixels cover."""
    first = math.floor(start_px * step)
    return first, max(first + 1, math.ceil(end_px * step))
