"""A reader that leaves out tiles which do not decode, and finding these tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.slides.checks.blanks import is_blank_tile
from wsi_minugan.slides.reader import SlideInfo, SlideReader
from wsi_minugan.slides.tissue import TissueMask


class TolerantReader:
    """A reader that reads white where a tile does not decode; which pixels these are does not depend on the region read.

    Parameters
    ----------
    reader : SlideReader
        The reader that does the reading, and that raises where a tile does not decode.
    """

    def __init__(self, reader: SlideReader) -> None:
        self._reader = reader
        self._broken: set[Box] = set()

    @property
    def strict(self) -> SlideReader:
        """The reader that does not tolerate.

        Returns
        -------
        SlideReader
            Of the same open slide.
        """
        return self._reader

    @property
    def broken(self) -> frozenset[Box]:
        """The tiles of level 0 (level-0 px) that were met and do not decode.

        Returns
        -------
        frozenset of Box
            Level-0 px.
        """
        return frozenset(self._broken)

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide.

        Returns
        -------
        SlideInfo
            Read when the slide was opened.
        """
        return self._reader.info

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region, white where tiles do not decode; see `SlideReader.read_level`.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.
        """
        try:
            return self._reader.read_level(level, box)
        except TileUnreadableError:
            out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
            for tile in tiles_of(self.info, level, box):
                part = tile.clipped(box)
                if self.decodes(level, tile):
                    out[part.slices_within(box)] = self._reader.read_level(level, part)
            return out

    def decodes(self, level: int, tile: Box) -> bool:
        """Return whether a tile, a box in its level's pixels, decodes as a whole.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        tile : Box
            In the level's px.

        Returns
        -------
        bool
            False where its pixels are not known.
        """
        return self.read_whole(level, tile) is not None

    def read_whole(self, level: int, tile: Box) -> NDArray[np.uint8] | None:
        """Return a tile, a box in its level's pixels; None where it does not decode as a whole.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        tile : Box
            In the level's px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3), or None
            RGB.
        """
        try:
            return self._reader.read_level(level, tile)
        except TileUnreadableError:
            if level == 0:
                self._broken.add(tile)
            return None

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
            False where a tile of it has no data.
        """
        return self._reader.holds(level, box)

    def missing(self, level: int) -> list[Box]:
        """Return the tiles without data; see `SlideReader.missing`.

        Parameters
        ----------
        level : int
            Level of the pyramid.

        Returns
        -------
        list of Box
            In the level's px.
        """
        return self._reader.missing(level)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def tiles_of(info: SlideInfo, level: int, box: Box) -> Iterator[Box]:
    """Yield the stored tiles of a level that meet a box, in raster order; all in the level's pixels.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    level : int
        Level of the pyramid.
    box : Box
        Region, in the level's px.

    Yields
    ------
    Box
        Cut at the level's edges.
    """
    size = info.levels[level]
    height, width = size.tile_height_px, size.tile_width_px
    inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
    if inside.height_px and inside.width_px:
        for y in range(inside.y_px // height * height, inside.y_end_px, height):
            for x in range(inside.x_px // width * width, inside.x_end_px, width):
                yield Box(y, x, height, width).clipped(Box(0, 0, size.height_px, size.width_px))


def without_broken_tiles(
    reader: SlideReader, frame: Frame, tissue: TissueMask, missing: Sequence[Box], most: int
) -> tuple[TissueMask, int]:
    """Return the tissue without what lies in level-0 tiles that do not decode or hold nothing, and how many such tiles there are.

    Parameters
    ----------
    reader : SlideReader
        The open slide; of one that tolerates every tile that holds tissue is decoded once.
    frame : Frame
        Its analysis frame.
    tissue : TissueMask
        Its tissue.
    missing : sequence of Box
        Tiles with tissue that are known to hold no data, level-0 px.
    most : int
        How many tiles may be left out.

    Returns
    -------
    tissue : TissueMask
        Without those tiles.
    count : int
        How many tiles.

    Raises
    ------
    TileUnreadableError
        If there are more.
    """
    info = reader.info
    broken = set(missing)
    if isinstance(reader, TolerantReader):
        broken |= _broken_tiles(reader, frame, tissue)
    left_out = np.zeros(tissue.mask.shape, bool)
    for tile in broken:
        left_out[tissue.cells_of(_in_analysis(tile, frame.scale))] = True
    if len(broken) > most:
        raise TileUnreadableError(_too_many(info, broken, most))
    return tissue.without(left_out), len(broken)


def _too_many(info: SlideInfo, broken: set[Box], most: int) -> str:
    first, number = min(broken), len(broken)
    if most:
        return (
            f"{info.path}: {number} tiles with tissue do not decode or hold no data, more than --tolerate-tiles {most} allows. "
            "Copy or scan the slide again, or raise that number."
        )
    return (
        f"{info.path}: level 0 holds no data in {number} tile{'' if number == 1 else 's'} with tissue, the first at x {first.x_px}, "
        f"y {first.y_px}. Copy or scan the slide again, or leave them out with --tolerate-tiles {number}."
    )


def _broken_tiles(reader: TolerantReader, frame: Frame, tissue: TissueMask) -> set[Box]:
    """Decode every level-0 tile with tissue; those met before are broken wherever they lie: nobody knows whether they hold tissue."""
    info, found = reader.info, set(reader.broken)
    for tile in tiles_of(info, 0, Box(0, 0, info.height_px, info.width_px)):
        box = _in_analysis(tile, frame.scale)
        if tile in found or not tissue.any_in(box):
            continue
        pixels = reader.read_whole(0, tile)
        if pixels is None or is_blank_tile(pixels, _seen_in(tissue, box)):
            found.add(tile)
    return found


def _seen_in(tissue: TissueMask, box: Box) -> NDArray[np.bool_]:
    """Return which cells of a box of analysis pixels show tissue's colour on a lower level."""
    if tissue.seen is None:
        return np.zeros((0, 0), bool)
    return np.asarray(tissue.seen[tissue.cells_of(box)], np.bool_)


def _in_analysis(tile: Box, scale: float) -> Box:
    """Return the analysis pixels that a level-0 box has a say in."""
    if scale == 1.0:
        return tile
    y, x = int(tile.y_px / scale) - 2, int(tile.x_px / scale) - 2
    return Box(y, x, int(tile.y_end_px / scale) + 3 - y, int(tile.x_end_px / scale) + 3 - x)
