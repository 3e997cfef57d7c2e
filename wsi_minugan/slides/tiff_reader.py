"""Direct decoding of JPEG-tiled TIFF and SVS: the same pixels as OpenSlide's, several times as fast.

OpenSlide spends most of its time per tile on other things than decoding. Where a slide is a plain JPEG-tiled TIFF, its tiles
are read and decoded here; anything unusual (sparse or odd tiles, a level that OpenSlide builds itself) stays with OpenSlide.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.openslide_reader import OpenSlideReader
from wsi_minugan.slides.reader import SlideInfo

CACHE_BYTES = 64 * 2**20
PROBE_TILES = 3
MAX_TILE_PX = 4096
_COLORSPACES = {tifffile.PHOTOMETRIC.RGB: "RGB", tifffile.PHOTOMETRIC.YCBCR: "YCBCR"}


@dataclass(frozen=True)
class _TiledLevel:
    """Where one level's tiles lie in the file."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]
    tables: bytes | None
    colorspace: str

    @property
    def tiles_across(self) -> int:
        return -(-self.width_px // self.tile_width_px)

    @property
    def plausible(self) -> bool:
        """Whether the header is whole and its tiles can be held; a damaged one claims tiles of gigabytes, or has too few."""
        tiles = self.tiles_across * -(-self.height_px // self.tile_height_px)
        sides = (self.tile_width_px, self.tile_height_px)
        return max(sides) <= MAX_TILE_PX and len(self.offsets) == len(self.byte_counts) == tiles


class TiffReader:
    """Reads JPEG tiles directly; made by `direct_reader`, which knows when that is right.

    Parameters
    ----------
    fallback : OpenSlideReader
        The same slide, for what is not a plain tile.
    levels : dict of int to _TiledLevel
        Levels that are decoded directly.
    """

    def __init__(self, fallback: OpenSlideReader, levels: dict[int, _TiledLevel]) -> None:
        self.info: SlideInfo = fallback.info
        self._fallback = fallback
        self._levels = levels
        self._file = fallback.info.path.open("rb", buffering=0)
        self._cache: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region of a level as RGB; see `SlideReader.read_level`."""
        tiled = self._levels.get(level)
        if tiled is None:
            return self._fallback.read_level(level, box)
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        inside = box.clipped(Box(0, 0, tiled.height_px, tiled.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return out
        th, tw = tiled.tile_height_px, tiled.tile_width_px
        for row in range(inside.y_px // th, (inside.y_end_px - 1) // th + 1):
            for column in range(inside.x_px // tw, (inside.x_end_px - 1) // tw + 1):
                tile_box = Box(row * th, column * tw, th, tw)
                part = tile_box.clipped(inside)
                tile = self._tile(level, tiled, row * tiled.tiles_across + column)
                if tile is None:
                    out[part.slices_within(box)] = self._fallback.read_level(level, part)
                else:
                    out[part.slices_within(box)] = tile[part.slices_within(tile_box)]
        return out

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        self._fallback.close()

    def _tile(self, level: int, tiled: _TiledLevel, index: int) -> NDArray[np.uint8] | None:
        """Return a decoded tile, or None where the file has none."""
        key = (level, index)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        count = int(tiled.byte_counts[index])
        if count == 0:
            return None
        tile = self._decode(tiled, index, count, level)
        self._cache[key] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, tiled: _TiledLevel, index: int, count: int, level: int) -> NDArray[np.uint8]:
        data = os.pread(self._file.fileno(), count, int(tiled.offsets[index]))
        try:
            if len(data) < count:
                raise ValueError("the file ends before it")
            tile = imagecodecs.jpeg8_decode(
                data, tables=tiled.tables, colorspace=tiled.colorspace, outcolorspace="RGB"
            )
        except (imagecodecs.Jpeg8Error, ValueError) as e:
            row, column = divmod(index, tiled.tiles_across)
            raise TileUnreadableError(
                f"{self.info.path}: tile (row {row}, column {column}) of level {level} does not decode ({e}). "
                "Copy or scan the slide again."
            ) from e
        if tile.shape != (tiled.tile_height_px, tiled.tile_width_px, 3):
            row, column = divmod(index, tiled.tiles_across)
            raise TileUnreadableError(
                f"{self.info.path}: tile (row {row}, column {column}) of level {level} has the size {tile.shape}, "
                "which the slide's header contradicts. Copy or scan the slide again."
            )
        pixels: NDArray[np.uint8] = tile
        return pixels


def direct_reader(slide: OpenSlideReader) -> TiffReader | None:
    """Return a direct reader of an open slide, or None where OpenSlide must read it.

    A few tiles are read both ways; only equal pixels make a direct reader.

    Parameters
    ----------
    slide : OpenSlideReader
        The slide, already opened.
    """
    if slide.info.vendor not in {"aperio", "generic-tiff"}:
        return None
    levels = _tiled_levels(slide.info.path, slide.info)
    if 0 not in levels:
        return None
    reader = TiffReader(slide, levels)
    # OpenSlide resamples levels whose reduction is no whole number; those stay with it.
    same = {k: v for k, v in levels.items() if _same_pixels(reader, slide, k)}
    if 0 in same:
        return TiffReader(slide, same)
    return None


def _tiled_levels(path: Path, info: SlideInfo) -> dict[int, _TiledLevel]:
    wanted = {(lv.width_px, lv.height_px): k for k, lv in enumerate(info.levels)}
    found: dict[int, _TiledLevel] = {}
    try:
        with tifffile.TiffFile(path) as tif:
            for page in (p.aspage() for p in tif.pages):
                level = wanted.get((page.imagewidth, page.imagelength))
                if (
                    level is None
                    or level in found
                    or not page.is_tiled
                    or page.compression != tifffile.COMPRESSION.JPEG
                ):
                    continue
                colorspace = _COLORSPACES.get(page.photometric)
                if colorspace is not None and page.samplesperpixel == 3 and page.planarconfig == 1:
                    tiled = _level_of(page, colorspace)
                    if tiled.plausible:
                        found[level] = tiled
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, AttributeError):
        return {}
    return found


def _level_of(page: tifffile.TiffPage, colorspace: str) -> _TiledLevel:
    return _TiledLevel(
        width_px=page.imagewidth,
        height_px=page.imagelength,
        tile_width_px=page.tilewidth,
        tile_height_px=page.tilelength,
        offsets=np.asarray(page.dataoffsets, np.uint64),
        byte_counts=np.asarray(page.databytecounts, np.uint64),
        tables=page.jpegtables,
        colorspace=colorspace,
    )


def _same_pixels(reader: TiffReader, slide: OpenSlideReader, level: int) -> bool:
    """Compare tiles spread over a level; the first ones of a slide are glass, so the largest are taken."""
    tiled = reader._levels[level]
    for index in np.argsort(tiled.byte_counts)[-PROBE_TILES:]:
        row, column = divmod(int(index), tiled.tiles_across)
        box = Box(
            row * tiled.tile_height_px,
            column * tiled.tile_width_px,
            tiled.tile_height_px,
            tiled.tile_width_px,
        )
        try:
            if not np.array_equal(reader.read_level(level, box), slide.read_level(level, box)):
                return False
        except TileUnreadableError:
            continue  # the block that needs this tile reports it
    return True
