"""A sample of a slide's streams, where the library that decodes them passes over what is wrong with them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import tifffile

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.slides.checks import dicom, pages
from wsi_minugan.slides.checks.codestream import SOI, j2k_is_whole, jpeg_hole, jpeg_is_ended
from wsi_minugan.slides.checks.tile_codecs import codec_of
from wsi_minugan.slides.reader import SlideInfo

_SAMPLE = 256
_HOLE = "a hole of zeros"
_J2K_HOLE = bytes(64)
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


def _wrong_with(stream: bytes) -> str:
    """Return what is wrong with a JPEG or JPEG 2000 stream, in words; empty where nothing is."""
    if stream.startswith(SOI):
        if not jpeg_is_ended(stream):
            return "its JPEG stream has no end marker"
        return f"its JPEG stream has {_HOLE}" if jpeg_hole(stream) else ""
    if b"\xff\x4f\xff\x51" not in stream[:256]:
        return ""  # neither: what decodes it says what is wrong with it
    if _J2K_HOLE in stream.rstrip(b"\0"):
        return f"its JPEG 2000 stream has {_HOLE}"
    return "" if j2k_is_whole(stream) else "its JPEG 2000 stream is cut off"
