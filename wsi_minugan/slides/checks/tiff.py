"""Refusing TIFFs whose pixels would be read as other than they are, or whose slide would not be the picture that is read."""

from __future__ import annotations

from pathlib import Path

import tifffile

from wsi_minugan.errors import SlideUnreadableError, WhichPictureError, WrongColoursError
from wsi_minugan.slides.checks import pages
from wsi_minugan.slides.checks.codestream import Colours, j2k_transform, jpeg_colours
from wsi_minugan.slides.reader import not_brightfield

_J2K_YCC = 33003
_STREAM_HEAD_BYTES = 2**14
_PROBED_TILES = 3
_SMALL_SHARE = 0.1
_PHOTOMETRIC = tifffile.PHOTOMETRIC


def refuse_other_than_rgb8(path: Path) -> None:
    """Refuse TIFFs that OpenSlide would open by squeezing 16 bits, one channel, or other colours into RGB.

    Parameters
    ----------
    path : Path
        The file; what is no TIFF passes.

    Raises
    ------
    NotBrightfieldError
        If they are of other than 8 bits, or of other than 3 or 4 channels.
    WrongColoursError
        If their tag says that the three channels are neither RGB nor YCbCr.
    """
    with pages.opened(path) as tif:
        try:
            if tif is None:
                return  # not a TIFF, or a damaged one: OpenSlide says so
            page = tif.pages.first
            if "PhotometricInterpretation" not in page.tags:
                return  # no TIFF is whole without it: what the other tags say is not to be told either
            depth, samples, photometric = page.bitspersample, page.samplesperpixel, page.photometric
        except pages.DAMAGED:
            return
    if depth != 8 or samples not in {3, 4} or photometric == _PHOTOMETRIC.PALETTE:
        raise not_brightfield(path, samples, depth)
    if photometric not in {_PHOTOMETRIC.RGB, _PHOTOMETRIC.YCBCR}:
        name = getattr(photometric, "name", str(photometric))
        raise WrongColoursError(
            f"{path} says that its colours are {name}, which would be taken for RGB. Convert it to RGB, or have its tag "
            "PhotometricInterpretation corrected if it does hold RGB."
        )


def refuse_short_tables(path: Path) -> None:
    """Refuse TIFFs whose tables hold fewer tiles than their sizes take: tiles would be taken for others, or read for minutes.

    Parameters
    ----------
    path : Path
        The file; what is no TIFF passes.

    Raises
    ------
    SlideUnreadableError
        If one is damaged so.
    """
    with pages.opened(path) as tif:
        try:
            for page in (p.aspage() for p in tif.pages) if tif is not None else ():
                most, needed = len(page.dataoffsets), page.is_tiled and _tiles_of(page)
                if most < needed:
                    raise SlideUnreadableError(
                        f"{path} is damaged: it says that its picture {page.index} has {page.imagewidth} x {page.imagelength} px, which "
                        f"take {needed} tiles, and holds {most}. Copy or scan the slide again."
                    )
        except pages.DAMAGED:
            return  # what opens it says so


def _tiles_of(page: tifffile.TiffPage) -> int:
    planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
    return int(-(-page.imagewidth // page.tilewidth) * -(-page.imagelength // page.tilelength) * planes)


def refuse_other_colours(path: Path) -> None:
    """Compare what the streams of a TIFF's tiles say of their colours with its tags.

    Parameters
    ----------
    path : Path
        The file; what is no TIFF passes.

    Raises
    ------
    WrongColoursError
        If they contradict each other: what decodes them would follow the tags, and give other colours than those scanned.
    """
    with pages.opened(path) as tif:
        try:
            for page in tif.pages if tif is not None else ():
                why = _contradiction(page.aspage())
                if why:
                    raise WrongColoursError(
                        f"{path} contradicts itself on its colours: {why}. They would be decoded wrongly. Export the slide "
                        "again, or have its tags corrected."
                    )
        except pages.DAMAGED:
            return  # what opens it says so


def _contradiction(page: tifffile.TiffPage) -> str:
    """Return what in a page's tiles is against its tags, in words; empty where nothing is."""
    if not page.is_tiled or page.samplesperpixel != 3:
        return ""
    ycc = page.photometric == _PHOTOMETRIC.YCBCR
    for stream in _streams(page):
        if page.compression == tifffile.COMPRESSION.JPEG:
            said: Colours = jpeg_colours(stream, page.jpegtables)
            if said.ycc is not None and said.ycc != ycc:
                words = ("RGB", "YCbCr")
                return f"its tag says {words[ycc]}, its JPEG tiles hold {words[said.ycc]} by {said.why}"
        elif page.compression == _J2K_YCC and j2k_transform(stream):
            return "its tag says JPEG 2000 of YCbCr, and its tiles have a colour transform of their own"
    return ""


def _streams(page: tifffile.TiffPage) -> list[bytes]:
    """Return the beginnings of some of a page's tiles, from its first to its last that is not empty."""
    places = [(o, c) for o, c in zip(page.dataoffsets, page.databytecounts, strict=False) if c]
    chosen = places[:: max(1, len(places) // _PROBED_TILES)][: _PROBED_TILES + 1]
    file, found = page.parent.filehandle, []
    for offset, count in chosen:
        file.seek(offset)
        found.append(file.read(min(count, _STREAM_HEAD_BYTES)))
    return found


def refuse_other_pictures(path: Path) -> tuple[str, ...]:
    """Look for pictures in a TIFF besides its first, which is the one that is read; its smaller copies are none.

    Parameters
    ----------
    path : Path
        The file; what is no TIFF passes.

    Returns
    -------
    tuple of str
        Sentences on small pictures that are not read.

    Raises
    ------
    WhichPictureError
        If another picture may be the slide, or be another scene of it.
    """
    with pages.opened(path) as tif:
        found = pages.pages_of(tif) if tif is not None else []
        # Of the pages of an OME-TIFF several are one picture's planes; OME-XML says what belongs together.
        images = pages.ome_images(tif) if tif is not None else []
    if len(found) < 2:
        return ()
    first, others = found[0], [p for p in found[1:] if not p.reduced and not p.side_picture]
    known = {i.size_px for i in images if i.side_picture or len(images) == 1}
    others = [p for p in others if not p.is_smaller_copy_of(first) and (p.width_px, p.height_px) not in known]
    largest = max(found, key=lambda p: p.area_px)
    if first.side_picture and others:
        raise WhichPictureError(
            _listed(path, found, "its first picture says that it is a label or an overview")
        )
    if first.side_picture or first.reduced or any(p.area_px > _SMALL_SHARE * first.area_px for p in others):
        if first is largest and not others:
            return ()
        raise WhichPictureError(_listed(path, found, "it does not say which of them is the slide"))
    return tuple(
        f"The file holds another picture (page {p.number}, {p.width_px} x {p.height_px} px), which was not read."
        for p in others
    )


def _listed(path: Path, found: list[pages.Page], why: str) -> str:
    own = [
        p for p in found if not p.reduced and not any(p.is_smaller_copy_of(o) for o in found if o is not p)
    ]
    words = ", ".join(
        f"page {p.number} of {p.width_px} x {p.height_px} px{' (label or overview)' if p.side_picture else ''}"
        for p in own
    )
    return (
        f"{path} holds several pictures ({words}), and {why}. Only the first would be read. "
        "Save the slide's picture, or each scene, as a file of its own."
    )
