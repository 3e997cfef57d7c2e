"""Direct decoding of tiled TIFF and SVS: the same pixels as OpenSlide's, several times as fast, and no complaint of a decoder overheard.

OpenSlide spends most of its time per tile on other things than decoding. Where a slide is a plain TIFF in tiles of JPEG, deflate, LZW
or raw pixels, these are read and decoded here; anything unusual (odd tiles, a level that OpenSlide builds itself) stays with OpenSlide.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks.pages import DAMAGED
from wsi_minugan.slides.checks.tile_codecs import TileCodec, codec_of
from wsi_minugan.slides.openslide_reader import OpenSlideReader
from wsi_minugan.slides.reader import SlideInfo

CACHE_BYTES = 64 * 2**20
PROBE_TILES = 3
MAX_TILE_PX = 4096
BUSY_GRID = 8
"""A slide is cut into so many parts each way, to find the place of each that took most bytes."""


@dataclass(frozen=True)
class _TiledLevel:
    """Where one level's tiles lie in the file."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]
    codec: TileCodec

    @property
    def tiles_across(self) -> int:
        return -(-self.width_px // self.tile_width_px)

    @property
    def bytes_of_tiles(self) -> NDArray[np.uint64]:
        """Bytes of each tile, shape (rows, columns)."""
        return self.byte_counts.reshape(-1, self.tiles_across)

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
        """Return a region of a level as RGB; see `SlideReader.read_level`.

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
            If a tile does not decode.
        """
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
            False where a tile of it has no bytes.
        """
        tiled = self._levels.get(level)
        if tiled is None:
            return self._fallback.holds(level, box)
        inside = box.clipped(Box(0, 0, tiled.height_px, tiled.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return True
        th, tw = tiled.tile_height_px, tiled.tile_width_px
        rows = slice(inside.y_px // th, (inside.y_end_px - 1) // th + 1)
        columns = slice(inside.x_px // tw, (inside.x_end_px - 1) // tw + 1)
        return bool((tiled.bytes_of_tiles[rows, columns] > 0).all())

    def missing(self, level: int) -> list[Box]:
        """Return the tiles of no bytes; see `SlideReader.missing`.

        Parameters
        ----------
        level : int
            Level of the pyramid.

        Returns
        -------
        list of Box
            In the level's px.
        """
        tiled = self._levels.get(level)
        if tiled is None:
            return []
        th, tw = tiled.tile_height_px, tiled.tile_width_px
        whole = Box(0, 0, tiled.height_px, tiled.width_px)
        places = np.argwhere(tiled.bytes_of_tiles == 0).tolist()
        return [Box(row * th, column * tw, th, tw).clipped(whole) for row, column in places]

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
        shape = (tiled.tile_height_px, tiled.tile_width_px, 3)
        try:
            if len(data) < count:
                raise ValueError("the file ends before it")
            return tiled.codec.decode(data, shape)
        except ValueError as e:
            row, column = divmod(index, tiled.tiles_across)
            raise TileUnreadableError(
                f"{self.info.path}: tile (row {row}, column {column}) of level {level} does not decode ({e}). "
                "Copy or scan the slide again."
            ) from e


def direct_reader(slide: OpenSlideReader) -> TiffReader | None:
    """Return a direct reader of an open slide, or None where OpenSlide must read it.

    A few tiles are read both ways; only equal pixels make a direct reader.

    Parameters
    ----------
    slide : OpenSlideReader
        The slide, already opened.

    Returns
    -------
    TiffReader or None
        It falls back on OpenSlide for levels that it cannot decode.
    """
    if slide.info.vendor not in {"aperio", "generic-tiff"}:
        return None
    levels = _tiled_levels(slide.info.path, slide.info)
    if 0 not in levels:
        return None
    reader = TiffReader(slide, levels)
    # OpenSlide resamples levels whose reduction is no whole number; those stay with it.
    same = {k: v for k, v in levels.items() if _same_pixels(reader, slide, k)}
    if 0 not in same:
        return None
    direct = TiffReader(slide, same)
    direct.info = replace(slide.info, busy_px=_busy_px(same[0]))
    return direct


def _tiled_levels(path: Path, info: SlideInfo) -> dict[int, _TiledLevel]:
    wanted = {(lv.width_px, lv.height_px): k for k, lv in enumerate(info.levels)}
    found: dict[int, _TiledLevel] = {}
    try:
        with tifffile.TiffFile(path) as tif:
            for page in (p.aspage() for p in tif.pages):
                level = wanted.get((page.imagewidth, page.imagelength))
                if level is None or level in found or not page.is_tiled:
                    continue
                codec = codec_of(page)
                tiled = _level_of(page, codec) if codec else None
                if tiled is not None and tiled.plausible:
                    found[level] = tiled
    except DAMAGED:
        return {}
    return found


def _level_of(page: tifffile.TiffPage, codec: TileCodec) -> _TiledLevel:
    return _TiledLevel(
        width_px=page.imagewidth,
        height_px=page.imagelength,
        tile_width_px=page.tilewidth,
        tile_height_px=page.tilelength,
        offsets=np.asarray(page.dataoffsets, np.uint64),
        byte_counts=np.asarray(page.databytecounts, np.uint64),
        codec=codec,
    )


def _busy_px(tiled: _TiledLevel) -> tuple[tuple[int, int], ...]:
    """Return the centres (x, y), level-0 px, of the tiles that took most bytes, each of another part of the slide, fullest first.

    Compressed tissue takes several times the bytes of glass, so that this says without a look at pixels where tissue must be.
    """
    counts = tiled.bytes_of_tiles
    found = []
    for rows in np.array_split(np.arange(counts.shape[0]), min(BUSY_GRID, counts.shape[0])):
        for columns in np.array_split(np.arange(counts.shape[1]), min(BUSY_GRID, counts.shape[1])):
            part = counts[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            row, column = np.unravel_index(int(part.argmax()), part.shape)
            found.append((int(part.max()), int(rows[0] + row), int(columns[0] + column)))
    tw, th = tiled.tile_width_px, tiled.tile_height_px
    return tuple((c * tw + tw // 2, r * th + th // 2) for _, r, c in sorted(found, reverse=True))


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
        own, theirs = _read(reader, level, box), _read(slide, level, box)
        if own is None:
            continue  # OpenSlide may be less strict; the block that needs this tile says what is wrong with it
        # Where OpenSlide refuses what is read here, it must be asked.
        if theirs is None or not np.array_equal(own, theirs):
            return False
    return True


def _read(reader: TiffReader | OpenSlideReader, level: int, box: Box) -> NDArray[np.uint8] | None:
    try:
        return reader.read_level(level, box)
    except TileUnreadableError:
        return None
