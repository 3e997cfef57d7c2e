"""Images of data sets that are TIFFs."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_minugan.errors import DataError

_TIFF_ERRORS = (
    tifffile.TiffFileError,
    struct.error,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)
"""What tifffile and its decoders were seen to raise on garbled files."""


def tiff_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a TIFF's first image.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tuple of int
        In pixels.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages.first
            return int(page.imagewidth), int(page.imagelength)
    except _TIFF_ERRORS as e:
        raise DataError(f"The image {path} cannot be read: {e}. Copy it again.") from e


def read_tiff(path: Path) -> NDArray[Any]:
    """Return the pixels of a TIFF's first image, channels last.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray of uint8, shape (h, w, channels)
        As they are stored.

    Raises
    ------
    DataError
        If it cannot be read, is cut short, or has not 8 bits a colour.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages.first
            # A decoder fills in the end of a JPEG tile that is cut short, without a word.
            ends = [at + n for at, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if max(ends, default=0) > path.stat().st_size:
                raise ValueError("it is cut short")
            picture = np.asarray(page.asarray())
            if picture.dtype != np.uint8:
                raise ValueError(f"it has values of {picture.dtype}; save it with 8 bits a colour")
            return np.moveaxis(picture, 0, -1) if page.axes.startswith("S") else picture
    except _TIFF_ERRORS as e:
        raise DataError(f"The image {path} cannot be read: {e}. Copy it again.") from e
