"""Whether lower levels are to scale, and show what level 0 shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.analysis import level_for
from wsi_minugan.slides.checks.blanks import flat_parts
from wsi_minugan.slides.reader import Level, SlideInfo, SlideReader

_GRID = 4
_BUSY_PLACES = 12
_SPOT_PX = 512
_LEAST_SPOT, _MOST_SPOT = 8, 64
_MOST_DIFFERENCE = 20.0
_FLAT, _LEAST_CORRELATION = 6.0, 0.5
_WRONG_SPOTS = 2
_LARGEST_FACTOR = 2**14
_MOST_FLAT = 0.5


def with_true_factors(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Return levels with the factors by which they are reduced, as far as their sizes tell.

    Where width and height tell different factors beyond rounding, the level may be padded to whole tiles: then its factor is the power of
    two that gives just this size. Where none does, the level is not usable.

    Parameters
    ----------
    levels : iterable of Level
        The pyramid, finest first, with the factors of the library that reads it.

    Returns
    -------
    tuple of Level
        As many, in the same order.
    """
    finest, *others = levels
    found = [finest]
    for level in others:
        factor = _true_factor(finest, level, found[-1].downsample)
        found.append(replace(level, downsample=factor) if factor else replace(level, usable=False))
    return tuple(found)


def _true_factor(finest: Level, level: Level, before: float) -> float | None:
    """Return a level's factor, or None; of several that fit a padded size the least above that of the level before."""
    sides = ((finest.width_px, level.width_px), (finest.height_px, level.height_px))
    low, high = max(n / (k + 1) for n, k in sides), min(n / max(k - 1, 0.5) for n, k in sides)
    if low <= high:
        power = 2.0 ** round(math.log2(max(level.downsample, 1.0)))
        return power if low <= power <= high else level.downsample
    tiles = (level.tile_width_px, level.tile_height_px)
    factor = 2
    while factor <= _LARGEST_FACTOR:
        if factor > before and all(
            k in _padded_sizes(n, factor, tile) for (n, k), tile in zip(sides, tiles, strict=True)
        ):
            return float(factor)
        factor *= 2
    return None


def _padded_sizes(whole: int, factor: int, tile: int) -> set[int]:
    """Return the sizes that a side of a level may have, reduced before or after it was filled up to whole tiles, or not filled up."""
    reduced = {whole // factor, -(-whole // factor)}
    filled = -(-whole // tile) * tile
    return reduced | {-(-n // tile) * tile for n in reduced} | {filled // factor, -(-filled // factor)}


@dataclass(frozen=True)
class Looked:
    """What a comparison of levels found.

    Attributes
    ----------
    levels : tuple of Level
        The pyramid; what does not show what level 0 shows is no longer usable.
    notes : tuple of str
        Sentences on the levels that are not used, for manifest and report.
    """

    levels: tuple[Level, ...]
    notes: tuple[str, ...]


def compared(
    reader: SlideReader, levels: Sequence[Level], factor: float, places: Sequence[tuple[int, int]] = ()
) -> Looked:
    """Compare the level from which the slide would be seen at a factor with level 0, and finer ones while they differ.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    levels : sequence of Level
        Its pyramid.
    factor : float
        Level-0 pixels per pixel of the picture that is to be made.
    places : sequence of tuple of int
        Where to look, as centres (x, y), level-0 px; by default at places spread evenly, and where most must be seen.

    Returns
    -------
    Looked
        The levels, marked as usable or not, with sentences on those that are not.
    """
    levels = tuple(levels)
    notes = [
        f"Level {k} of the slide is not to scale with level 0; a finer level was used in its place."
        for k, level in enumerate(levels)
        if not level.usable and not places
    ]
    spots = list(places or _places(reader.info))
    while (index := level_for(levels, factor)) > 0:
        why = _why_not(reader, levels[index], index, spots)
        if not why:
            break
        levels = (*levels[:index], replace(levels[index], usable=False), *levels[index + 1 :])
        notes.append(f"Level {index} of the slide {why}; a finer level was used in its place.")
    return Looked(levels, tuple(notes))


def _places(info: SlideInfo) -> Iterator[tuple[int, int]]:
    """Yield centres (x, y), level-0 px: spread evenly, and where most must be seen."""
    for row in range(_GRID):
        for column in range(_GRID):
            yield (
                round((column + 0.5) * info.width_px / _GRID),
                round((row + 0.5) * info.height_px / _GRID),
            )
    yield from info.busy_px[:_BUSY_PLACES]


def _why_not(reader: SlideReader, level: Level, index: int, spots: Iterable[tuple[int, int]]) -> str:
    """Return why a level cannot stand for level 0, in words; empty where it can."""
    wrong = 0
    for x, y in spots:
        try:
            same = _is_same(reader, level, index, x, y)
        except TileUnreadableError:
            return "has tiles that do not decode"
        wrong += same is False
        if wrong == _WRONG_SPOTS:
            return "does not show what level 0 shows"
    return ""


def _is_same(reader: SlideReader, level: Level, index: int, x: int, y: int) -> bool | None:
    """Compare one spot of a level with level 0; None where level 0 is not there to be compared with."""
    side = int(min(max(_SPOT_PX / level.downsample, _LEAST_SPOT), _MOST_SPOT))
    whole = Box(0, 0, level.height_px, level.width_px)
    box = Box(
        round(y / level.downsample) - side // 2, round(x / level.downsample) - side // 2, side, side
    ).clipped(whole)
    if box.height_px < 4 or box.width_px < 4:
        return None
    source = Box(*(round(v * level.downsample) for v in (box.y_px, box.x_px, box.height_px, box.width_px)))
    source = source.clipped(Box(0, 0, reader.info.height_px, reader.info.width_px))
    try:
        if source.height_px < 1 or source.width_px < 1 or not reader.holds(0, source):
            return None
        fine = reader.read_level(0, source)
    except TileUnreadableError:
        return None  # what does not decode at level 0 is told by what needs it
    coarse = reader.read_level(index, box)
    # What has one value at level 0 may be a hole of level 0: it says nothing against the lower level.
    flat = flat_parts(fine)
    if flat.size == 0 or flat.mean() > _MOST_FLAT:
        return None
    size = (box.width_px, box.height_px)
    known = cv2.resize((~flat).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)[..., None].astype(
        bool
    )
    return _look_alike(np.where(known, cv2.resize(fine, size, interpolation=cv2.INTER_AREA), coarse), coarse)


def _look_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Return whether two small pictures show the same, however they were reduced, sharpened or compressed."""
    a, b = (cv2.GaussianBlur(p.astype(np.float32), (0, 0), 1.5) for p in (one, other))
    if float(np.abs(a - b).mean()) > _MOST_DIFFERENCE:
        return False
    a, b = a - a.mean((0, 1)), b - b.mean((0, 1))
    spread = float(a.std()), float(b.std())
    if min(spread) < _FLAT:
        return max(spread) < 3 * _FLAT
    return float((a * b).mean()) / (spread[0] * spread[1]) > _LEAST_CORRELATION
