"""Whether tissue has colours that H&E can have (docs/decisions: colours of H&E)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError, WrongColoursError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks.stains import balanced, glass_of
from wsi_minugan.slides.reader import SlideReader

_SPOT_PX = 256
_GRID = 3
_STEP = 2
_LEAST_CHROMA, _DARK, _UNKNOWN = 12, 120, 12
_DARKEST, _LIGHTER = 6, 40
_LEAST_PIXELS, _LEAST_VARIATION = 2000, 6.0
_LEAST_OVER_GREEN = -5.0
_MOST_OVER_GREEN = (140.0, 108.0)
_LEAST_BLUER = -0.09
_LEAST_GREEN_SPREAD = 0.5
_TYPICAL, _DARKER = 0.7, 0.97
"""Quantiles of darkness at which places are taken: the darkest of a slide may be pigment. Where what is typical is even, as glass of wrong
colours is, darker ones are taken."""


def refuse_impossible_colours(
    reader: SlideReader, picture: NDArray[np.uint8], stained: NDArray[np.bool_]
) -> None:
    """Look at the stain of some places at full resolution.

    Whatever the laboratory, haematoxylin and eosin both take away green most: nuclei have more blue than green, green varies most from
    place to place, and nuclei are bluer than what is around them. Channels in another order, or YCbCr and CIELab shown as RGB, are not so.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    picture : ndarray of uint8, shape (rows, columns, 3)
        The slide at low resolution.
    stained : ndarray of bool, shape (rows, columns)
        Its tissue there.

    Raises
    ------
    WrongColoursError
        If the colours cannot be those of H&E.
    """
    glass = glass_of(picture)
    for quantile in (_TYPICAL, _DARKER):
        places = [_read(reader, box) for box in _spots(reader, picture, stained, quantile)]
        pixels = _stained_pixels(balanced(p, glass) for p in places if p is not None)
        if len(pixels) < _LEAST_PIXELS or float(pixels.mean(axis=1).std()) < _LEAST_VARIATION:
            continue
        why = impossible_in(pixels)
        if why:
            raise WrongColoursError(
                f"The tissue of {reader.info.path} has colours that H&E cannot have: {why}. Its channels are in another order, or it "
                "holds other colours (YCbCr, CIELab) than its header says; or it is not stained with H&E. Export it again as RGB."
            )
        return


def _stained_pixels(places: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return what is no glass in some places, as ``(n, 3)`` RGB; black borders are unknown."""
    parts = [p.reshape(-1, 3) for p in places]
    pixels = np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 3), np.float32)
    brightness = pixels.mean(axis=1)
    stain = (np.ptp(pixels, axis=1) >= _LEAST_CHROMA) | (brightness < _DARK)
    return np.asarray(pixels[stain & (brightness >= _UNKNOWN)])


def impossible_in(pixels: NDArray[np.float32]) -> str:
    """Return why the stained pixels of a slide cannot be H&E, in words; empty where they can.

    Parameters
    ----------
    pixels : ndarray of float32, shape (n, 3)
        RGB of full resolution, of glass without tint.

    Returns
    -------
    str
        The end of a sentence.
    """
    over_green = np.median(pixels[:, (0, 2)] - pixels[:, 1:2], axis=0)
    if over_green[0] < _LEAST_OVER_GREEN:
        return "there is more green in it than red"
    if (over_green > _MOST_OVER_GREEN).any():
        return "they are stronger than any stain"
    brightness = pixels.mean(axis=1)
    dark, light = np.percentile(brightness, (_DARKEST, _LIGHTER))
    nuclei, others = pixels[brightness <= dark], pixels[brightness >= light]
    if float(np.median(nuclei[:, 2] - nuclei[:, 1])) < _LEAST_OVER_GREEN:
        return "what is darkest has less blue than green"
    spread = pixels.std(axis=0)
    if spread[1] < _LEAST_GREEN_SPREAD * max(float(spread[0]), float(spread[2])):
        return "green hardly varies"
    if _blueness(nuclei) - _blueness(others) < _LEAST_BLUER:
        return "what is darkest is less blue than what is around it"
    return ""


def _blueness(pixels: NDArray[np.float32]) -> float:
    """Return how much more red than blue is taken away, of all that is taken away."""
    density = -np.log(np.maximum(pixels, 1) / 255)
    return float(np.median((density[:, 0] - density[:, 2]) / np.maximum(density.mean(axis=1), 0.05)))


def _spots(
    reader: SlideReader, picture: NDArray[np.uint8], stained: NDArray[np.bool_], quantile: float
) -> Iterator[Box]:
    """Yield boxes of level-0 pixels: a stained place of each part of the slide that holds tissue, of some darkness among these."""
    rows, columns = stained.shape
    darkness = 255 - picture.mean(axis=2)
    for part_rows in np.array_split(np.arange(rows), min(_GRID, rows)):
        for part_columns in np.array_split(np.arange(columns), min(_GRID, columns)):
            part = (slice(part_rows[0], part_rows[-1] + 1), slice(part_columns[0], part_columns[-1] + 1))
            places = np.argwhere(stained[part])
            if len(places):
                order = np.argsort(darkness[part][stained[part]], kind="stable")
                row, column = places[order[int(quantile * (len(order) - 1))]]
                y = (part_rows[0] + row + 0.5) / rows * reader.info.height_px
                x = (part_columns[0] + column + 0.5) / columns * reader.info.width_px
                yield Box(int(y) - _SPOT_PX // 2, int(x) - _SPOT_PX // 2, _SPOT_PX, _SPOT_PX)


def _read(reader: SlideReader, box: Box) -> NDArray[np.uint8] | None:
    try:
        return reader.read_level(0, box)[::_STEP, ::_STEP]
    except TileUnreadableError:
        return None  # what needs this tile tells it
