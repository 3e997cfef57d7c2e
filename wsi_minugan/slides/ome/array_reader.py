"""A slide whose levels are arrays: regions are cut from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.reader import SlideInfo

_WHITE = 255
_LARGEST_CHUNK_BYTES = 2**28


def read_check(axes: str, levels: Sequence[Any]) -> None:
    """Refuse levels that are no pictures of one time and plane, that do not shrink, or whose chunks would fill the memory.

    Parameters
    ----------
    axes : str
        Their axes.
    levels : sequence of arrays
        Finest first.

    Raises
    ------
    ValueError
        With the reason.
    """
    if sorted(axes.replace("t", "").replace("z", "")) != ["c", "x", "y"]:
        raise ValueError(f"its axes are {axes}")
    for array in levels:
        shape = dict(zip(axes, array.shape, strict=True))
        if any(shape[a] != 1 for a in "tz" if a in shape):
            raise ValueError("it holds several times or planes")
        if min(shape.values()) < 1 or any(shape[a] > levels[0].shape[axes.index(a)] for a in "yx"):
            raise ValueError("its levels do not grow smaller")
        if math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK_BYTES:
            raise ValueError("its chunks are larger than 256 MB")


@dataclass
class ArrayReader:
    """Reads regions of arrays, as a `SlideReader`.

    Attributes
    ----------
    info : SlideInfo
        What is known of the slide.
    levels : sequence of arrays
        One for each level; only what is cut out is read.
    axes : str
        Their axes, such as "yxc" or "tczyx"; those other than y, x and c have one place.
    absent : callable
        Yields those parts of a level that meet a box and are not stored: (level, box) to boxes, all in the level's pixels.
    release : callable
        Closes the file.
    """

    info: SlideInfo
    levels: Sequence[Any]
    axes: str
    absent: Callable[[int, Box], Iterable[Box]]
    release: Callable[[], None]

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region; see `SlideReader.read_level`.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB, white outside of the slide.

        Raises
        ------
        TileUnreadableError
            If a chunk does not decode.
        """
        size = self.info.levels[level]
        out = np.full((box.height_px, box.width_px, 3), _WHITE, np.uint8)
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px and inside.width_px:
            out[inside.slices_within(box)] = self._cut(level, inside)
        return out

    def _cut(self, level: int, box: Box) -> NDArray[np.uint8]:
        rows, columns = box.slices_within(Box(0, 0, 0, 0))
        place = {"y": rows, "x": columns, "c": slice(0, 3)}
        try:
            pixels = np.asarray(self.levels[level][tuple(place.get(a, 0) for a in self.axes)])
        # Each codec has errors of its own.
        except Exception as e:
            raise TileUnreadableError(
                f"{self.info.path}: the region at x {box.x_px}, y {box.y_px} of level {level} does not decode ({e}). "
                "Copy or scan the slide again."
            ) from e
        kept = [a for a in self.axes if a in place]
        return np.ascontiguousarray(pixels.transpose([kept.index(a) for a in "yxc"]))

    def holds(self, level: int, box: Box) -> bool:
        """Return whether all of a region is stored; see `SlideReader.holds`.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        bool
            False where a chunk of it has no data.
        """
        return next(iter(self.absent(level, box)), None) is None

    def missing(self, level: int) -> list[Box]:
        """Return the chunks or tiles that were never written, or are lost; see `SlideReader.missing`.

        Parameters
        ----------
        level : int
            Level of the pyramid.

        Returns
        -------
        list of Box
            In the level's px.
        """
        size = self.info.levels[level]
        return list(self.absent(level, Box(0, 0, size.height_px, size.width_px)))

    def close(self) -> None:
        """Release the file."""
        self.release()
