"""A slide as a pyramid of Dask arrays, read when it is looked at."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box
from wsi_minugan.slides.opening import open_slide

if TYPE_CHECKING:
    import dask.array as da

    from wsi_minugan.slides.reader import SlideReader

CHUNK_PX = 1024


class _Level:
    """One level as an array that Dask can cut."""

    def __init__(self, reader: SlideReader, level: int) -> None:
        self._reader, self._level = reader, level
        size = reader.info.levels[level]
        self.shape, self.dtype, self.ndim = (size.height_px, size.width_px, 3), np.dtype(np.uint8), 3

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        rows, columns = key[0].indices(self.shape[0]), key[1].indices(self.shape[1])
        box = Box(rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])
        return self._reader.read_level(self._level, box)[:: rows[2], :: columns[2], key[2]]


def pyramid_of(slide: str | os.PathLike[str]) -> list[da.Array]:
    """Return a slide's levels, finest first.

    Parameters
    ----------
    slide : str or path
        A whole-slide image.

    Returns
    -------
    list of dask arrays of uint8, each of shape (h, w, 3)
        RGB. Pixels are read when they are computed; the slide stays open as long as the arrays are used.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    import dask.array as da

    reader = open_slide(slide)
    level = partial(_Level, reader)
    arrays: list[Any] = [level(k) for k in range(len(reader.info.levels))]
    return [da.from_array(a, chunks=(CHUNK_PX, CHUNK_PX, 3), asarray=False, lock=True) for a in arrays]
