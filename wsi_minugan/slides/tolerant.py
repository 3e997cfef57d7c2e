"""A reader that leaves out tiles which do not decode, and finding these tiles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.slides.reader import SlideInfo, SlideReader
from wsi_minugan.slides.tissue import TissueMask


class TolerantReader:
    """Reads white where a tile does not decode; which pixels these are does not depend on the region read.

    Parameters
    ----------
    reader : SlideReader
        The reader.
    """

    def __init__(self, reader: SlideReader) -> None:
        self._reader = reader

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._reader.info

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region, white where tiles do not decode; see `SlideReader.read_level`."""
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
        """Return whether a tile, a box in its level's pixels, decodes as a whole."""
        try:
            self._reader.read_level(level, tile)
        except TileUnreadableError:
            return False
        return True

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def tiles_of(info: SlideInfo, level: int, box: Box) -> Iterator[Box]:
    """Yield the stored tiles of a level that meet a box, in raster order; all in the level's pixels."""
    size = info.levels[level]
    height, width = size.tile_height_px, size.tile_width_px
    inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
    if inside.height_px and inside.width_px:
        for y in range(inside.y_px // height * height, inside.y_end_px, height):
            for x in range(inside.x_px // width * width, inside.x_end_px, width):
                yield Box(y, x, height, width).clipped(Box(0, 0, size.height_px, size.width_px))


def without_broken_tiles(
    reader: TolerantReader, frame: Frame, tissue: TissueMask, most: int
) -> tuple[TissueMask, int]:
    """Return the tissue without what lies in level-0 tiles that do not decode, and how many such tiles there are.

    Parameters
    ----------
    reader : TolerantReader
        The open slide; every tile that holds tissue is decoded once.
    frame : Frame
        Its analysis frame.
    tissue : TissueMask
        Its tissue.
    most : int
        How many tiles may be left out.

    Raises
    ------
    TileUnreadableError
        If there are more.
    """
    info = reader.info
    left_out, broken = np.zeros(tissue.mask.shape, bool), 0
    for tile in tiles_of(info, 0, Box(0, 0, info.height_px, info.width_px)):
        box = _in_analysis(tile, frame.scale)
        if tissue.any_in(box) and not reader.decodes(0, tile):
            broken += 1
            left_out[tissue.cells_of(box)] = True
    if broken > most:
        raise TileUnreadableError(
            f"{info.path}: {broken} tiles with tissue do not decode, more than --tolerate-tiles {most} allows. "
            "Copy or scan the slide again, or raise that number."
        )
    return tissue.without(left_out), broken


def _in_analysis(tile: Box, scale: float) -> Box:
    """Return the analysis pixels that a level-0 box has a say in."""
    if scale == 1.0:
        return tile
    y, x = int(tile.y_px / scale) - 2, int(tile.x_px / scale) - 2
    return Box(y, x, int(tile.y_end_px / scale) + 3 - y, int(tile.x_end_px / scale) + 3 - x)
