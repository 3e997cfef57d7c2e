"""A slide's streams, where the library that decodes them passes over what is wrong with them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tifffile

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks import dicom, pages
from wsi_minugan.slides.checks.codestream import SOI, j2k_hole, j2k_is_whole, jpeg_hole, jpeg_is_ended
from wsi_minugan.slides.checks.tile_codecs import codec_of
from wsi_minugan.slides.reader import SlideInfo

_SAMPLE = 256
_HOLE = "a hole of zeros"
_J2K = frozenset({33003, 33004, 33005, 34712})
_LOOKED_AT = frozenset({"dicom", "generic-tiff", "aperio", "tiff", "ome", "ome-tiff", "unknown"})
"""Kinds of slides, as the readers name them, whose first picture is level 0; the streams of others OpenSlide decodes strictly."""


def refuse_broken_streams(info: SlideInfo, tolerant: bool = False) -> None:
    """Look at some of the streams of level 0, spread over the file.

    Parameters
    ----------
    info : SlideInfo
        The slide; where its tiles are decoded here, each is looked at when it is read, and nothing is done.
    tolerant : bool
        Whether broken tiles may be left out: then only holes count, which are not found when the tile is decoded.

    Raises
    ------
    TileUnreadableError
        If one is cut off or holed.
    """
    if info.busy_px or info.vendor.lower() not in _LOOKED_AT or not info.path.is_file():
        return
    found = _frames_of(info) if info.vendor == "dicom" else _tiles_of(info.path)
    for number, why in found:
        if tolerant and _HOLE not in why:
            continue
        raise TileUnreadableError(
            f"{info.path}: tile {number} of level 0, counted from 0, does not decode ({why}). Copy or scan the slide again."
        )


def _frames_of(info: SlideInfo) -> Iterator[tuple[int, str]]:
    for path, head in dicom.heads_of(info.path).items():
        if head.volume and head.width_px == info.width_px:
            with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                places = list(dicom.frame_places(data))
                for k in range(0, len(places), max(1, len(places) // _SAMPLE)):
                    why = _wrong_with(data[places[k][0] : sum(places[k])])
                    if why:
                        yield k, why


def _tiles_of(path: Path) -> Iterator[tuple[int, str]]:
    with pages.opened(path) as tif:
        try:
            page = tif.pages.first if tif is not None else None
            if page is None or not page.is_tiled:
                return
            places = [p for p in zip(page.dataoffsets, page.databytecounts, strict=False) if p[1]]
        except pages.DAMAGED:
            return
        for k in range(0, len(places), max(1, len(places) // _SAMPLE)):
            page.parent.filehandle.seek(places[k][0])
            why = _wrong_with_tile(page, page.parent.filehandle.read(places[k][1]))
            if why:
                yield k, why


def _wrong_with_tile(page: tifffile.TiffPage, data: bytes) -> str:
    codec = codec_of(page)
    if codec is None:
        return _wrong_with(data) if page.compression in _J2K else ""
    try:
        codec.decode(data, (page.tilelength, page.tilewidth, 3))
    except ValueError as e:
        return str(e)
    return ""


def _wrong_with(stream: bytes, tables: bytes | None = None) -> str:
    """Return what is wrong with a JPEG or JPEG 2000 stream, in words; empty where nothing is."""
    if stream.startswith(SOI):
        if not jpeg_is_ended(stream):
            return "its JPEG stream has no end marker"
        return f"its JPEG stream has {_HOLE}" if jpeg_hole(stream, tables) else ""
    if b"\xff\x4f\xff\x51" not in stream[:256]:
        return ""  # neither: what decodes it says what is wrong with it
    if j2k_hole(stream):
        return f"its JPEG 2000 stream has {_HOLE}"
    return "" if j2k_is_whole(stream) else "its JPEG 2000 stream is cut off"


@dataclass(frozen=True)
class _Places:
    """Where the streams of level 0 lie: (start, length) in a file, row by row; `tables` are what a TIFF's tiles share."""

    path: Path
    found: list[tuple[int, int]]
    across: int
    tables: bytes | None = None


class StoredStreams:
    """The streams of level 0, each looked at once before a library decodes it that may pass over a hole.

    Parameters
    ----------
    info : SlideInfo
        The slide, as OpenSlide has it. Slides other than DICOM in tiles row by row, JPEG and JPEG 2000 are not looked at.
    """

    def __init__(self, info: SlideInfo) -> None:
        self._info = info
        self._places: _Places | None = None
        self._is_known = False
        self._whole: set[int] = set()

    def refuse_broken(self, box: Box) -> None:
        """Look at the tiles that meet a region.

        Parameters
        ----------
        box : Box
            Region inside the slide, level-0 px.

        Raises
        ------
        TileUnreadableError
            If one is cut off or holed.
        """
        if not self._is_known:
            self._places, self._is_known = _places_of(self._info), True
        if self._places is None:
            return
        level = self._info.levels[0]
        rows = range(box.y_px // level.tile_height_px, (box.y_end_px - 1) // level.tile_height_px + 1)
        columns = range(box.x_px // level.tile_width_px, (box.x_end_px - 1) // level.tile_width_px + 1)
        wanted = {row * self._places.across + column for row in rows for column in columns} - self._whole
        if wanted:
            self._look_at(self._places, sorted(wanted))

    def _look_at(self, places: _Places, wanted: list[int]) -> None:
        with places.path.open("rb") as f:
            for number in wanted:
                start, length = places.found[number]
                f.seek(start)
                why = _wrong_with(f.read(length), places.tables) if length else ""
                if why:
                    row, column = divmod(number, places.across)
                    raise TileUnreadableError(
                        f"{self._info.path}: tile (row {row}, column {column}) of level 0 does not decode ({why}). "
                        "Copy or scan the slide again."
                    )
                self._whole.add(number)


def _places_of(info: SlideInfo) -> _Places | None:
    level = info.levels[0]
    across = -(-level.width_px // level.tile_width_px)
    try:
        if info.vendor == "dicom":
            places = _dicom_places(info, across)
        elif info.vendor in {"aperio", "generic-tiff"}:
            places = _tiff_places(info, across)
        else:
            return None
    except (OSError, ValueError):
        return None  # what reads it says so
    tiles = across * -(-level.height_px // level.tile_height_px)
    return places if places is not None and len(places.found) == tiles else None


def _dicom_places(info: SlideInfo, across: int) -> _Places | None:
    heads = dicom.heads_of(info.path)
    finest = [p for p, h in heads.items() if h.volume and h.in_order and h.width_px == info.width_px]
    if len(finest) != 1:
        return None
    with finest[0].open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Places(finest[0], list(dicom.frame_places(data)), across)


def _tiff_places(info: SlideInfo, across: int) -> _Places | None:
    with pages.opened(info.path) as tif:
        try:
            page = tif.pages.first if tif is not None else None
            looked_at = page is not None and page.compression in {*_J2K, tifffile.COMPRESSION.JPEG}
            if page is None or not looked_at or not page.is_tiled:
                return None
            found = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            return _Places(info.path, found, across, page.jpegtables)
        except pages.DAMAGED:
            return None
