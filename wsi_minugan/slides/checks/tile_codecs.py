"""Decoding one tile of a TIFF, and refusing whatever its decoder would only warn of."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from wsi_minugan.slides.checks.codestream import EOI, SOI, jpeg_hole, jpeg_is_ended

_COMPRESSION, _PHOTOMETRIC = tifffile.COMPRESSION, tifffile.PHOTOMETRIC
_DEFLATE = frozenset({_COMPRESSION.ADOBE_DEFLATE, _COMPRESSION.DEFLATE})
_HORIZONTAL = tifffile.PREDICTOR.HORIZONTAL
# An Adobe marker with transform 0 (RGB) or 1 (YCbCr) makes the decoder follow the TIFF's tag, as libtiff does.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


@dataclass(frozen=True)
class TileCodec:
    """How the tiles of one level are stored.

    Attributes
    ----------
    compression : int
        The TIFF's number for it.
    predictor : bool
        Whether differences of neighbours are stored.
    head : bytes
        What a JPEG stream needs before its own markers: start, colours, and the tables that all tiles share.
    """

    compression: int
    predictor: bool
    head: bytes = b""

    def decode(self, data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Return the pixels of a tile.

        Parameters
        ----------
        data : bytes
            The tile as it is stored.
        shape : tuple of int
            Height, width and channels that it must have.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.

        Raises
        ------
        ValueError
            If it does not decode, or decodes with any complaint.
        """
        if self.compression == _COMPRESSION.JPEG:
            return self._jpeg(data, shape)
        if self.compression in _DEFLATE:
            data = _inflated(data, shape)
        elif self.compression == _COMPRESSION.LZW:
            data = _lzw(data, shape)
        if len(data) < shape[0] * shape[1] * shape[2]:
            raise ValueError(f"it holds {len(data)} bytes, fewer than its pixels take")
        pixels = np.frombuffer(data, np.uint8, shape[0] * shape[1] * shape[2]).reshape(shape)
        if self.predictor:
            pixels = np.add.accumulate(pixels, axis=1, dtype=np.uint8)
        return pixels

    def _jpeg(self, data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        if not data.startswith(SOI):
            raise ValueError("it is no JPEG stream")
        if not jpeg_is_ended(data):
            raise ValueError("its JPEG stream has no end marker")
        if jpeg_hole(data, self.head):
            raise ValueError("its JPEG stream has a hole of zeros")
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(self.head + data[2:], "RGB")
        if pixels.shape != shape:
            raise ValueError(f"it has the size {pixels.shape}, which the slide's header contradicts")
        return pixels


def _inflated(data: bytes, shape: tuple[int, int, int]) -> bytes:
    """Inflate no more than a tile's bytes, and to the end of the stream, where its checksum is."""
    size = shape[0] * shape[1] * shape[2]
    inflater = zlib.decompressobj()
    try:
        pixels = inflater.decompress(data, size)
        rest = inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as e:
        raise ValueError(str(e)) from e
    if not inflater.eof and not rest:
        raise ValueError("its stream ends early")
    return pixels


def _lzw(data: bytes, shape: tuple[int, int, int]) -> bytes:
    try:
        return bytes(imagecodecs.lzw_decode(data, out=shape[0] * shape[1] * shape[2]))
    except RuntimeError as e:
        raise ValueError(str(e)) from e


def codec_of(page: tifffile.TiffPage) -> TileCodec | None:
    """Return how a page's tiles are decoded; None where OpenSlide must do it.

    Parameters
    ----------
    page : TiffPage
        A page of a TIFF in tiles.

    Returns
    -------
    TileCodec or None
        The decoder.
    """
    plain = (
        page.samplesperpixel == 3
        and page.planarconfig == 1
        and page.fillorder == 1
        and page.bitspersample == 8
    )
    if not plain:
        return None
    if page.compression == _COMPRESSION.JPEG and page.photometric in {_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR}:
        ycc = page.photometric == _PHOTOMETRIC.YCBCR
        tables = page.jpegtables or SOI + EOI
        return TileCodec(page.compression, False, SOI + _ADOBE + bytes([ycc]) + tables[2:-2])
    known = page.compression in {*_DEFLATE, _COMPRESSION.LZW, _COMPRESSION.NONE} and page.predictor in {
        1,
        _HORIZONTAL,
    }
    if known and page.photometric == _PHOTOMETRIC.RGB:
        return TileCodec(page.compression, page.predictor == _HORIZONTAL)
    return None
