"""Opening a slide with the reader that suits it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wsi_minugan.errors import SlideError, SlideUnreadableError
from wsi_minugan.slides.checks import dicom
from wsi_minugan.slides.checks.tiff import refuse_other_colours, refuse_other_pictures, refuse_short_tables
from wsi_minugan.slides.reader import OME_TIFF, SlideReader

if TYPE_CHECKING:
    from wsi_minugan.slides.ome.array_reader import ArrayReader
    from wsi_minugan.slides.openslide_reader import OpenSlideReader
    from wsi_minugan.slides.tiatoolbox_reader import TiatoolboxReader

_LONGEST_PX, _LARGEST_PX = 2**21, 2**39
"""Half a metre at 0.25 um/px, and six times the largest glass slide in use (50 x 75 mm)."""

R = TypeVar("R", "OpenSlideReader", "TiatoolboxReader", "ArrayReader")


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> SlideReader:
    """Open a slide.

    Parameters
    ----------
    path : str or path
        The file (or, for some formats, one of its files).
    reader : {"auto", "openslide", "tiatoolbox"}
        "auto" decodes most tiled TIFFs directly, reads OME-Zarr, and OME-TIFF that OpenSlide does not open, and gives
        everything else to OpenSlide.

    Returns
    -------
    SlideReader
        The open slide.

    Raises
    ------
    SlideUnreadableError
        If the file is missing or nothing opens it.
    NotBrightfieldError
        If it is not 8-bit RGB.
    WrongColoursError
        If its header and its pixels contradict each other on its colours.
    WhichPictureError
        If it holds several pictures, and does not say which of them is the slide.
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as e:
        raise SlideUnreadableError(
            f"{path} cannot be read: {e.strerror or e}. Check who may read it and whether the drive is connected."
        ) from e
    if not there:
        raise SlideUnreadableError(
            f"There is no file {path}. Check the name and whether the drive is connected."
        )
    refuse_short_tables(path)
    slide = _opened(path, reader)
    try:
        _refuse_impossible_size(slide)
    except SlideError:
        slide.close()
        raise
    return slide


def _refuse_impossible_size(slide: SlideReader) -> None:
    """Refuse damaged headers whose slide would fill the memory before anything else shows that they are damaged."""
    width, height = slide.info.width_px, slide.info.height_px
    if max(width, height) > _LONGEST_PX or width * height > _LARGEST_PX:
        raise SlideUnreadableError(
            f"{slide.info.path} says that it has {width} x {height} px, more than any slide: it is damaged. Copy or scan the slide again."
        )


def _opened(path: Path, reader: str) -> SlideReader:
    if reader == "tiatoolbox":
        from wsi_minugan.slides.tiatoolbox_reader import TiatoolboxReader

        return _noted(TiatoolboxReader(path), refuse_other_pictures(path))
    if reader == "auto" and path.suffix.lower() == ".zarr":
        from wsi_minugan.slides.ome.ngff import open_ngff

        return open_ngff(path)
    from wsi_minugan.slides.openslide_reader import OpenSlideReader

    try:
        slide = OpenSlideReader(path)
    except SlideUnreadableError as e:
        if reader == "auto" and path.name.lower().endswith(OME_TIFF):
            return _ome_tiff(path, e)
        raise
    try:
        _refuse_contradictions(slide)
    except SlideError:
        slide.close()
        raise
    if reader == "auto":
        from wsi_minugan.slides.tiff_reader import direct_reader

        return direct_reader(slide) or slide
    return slide


def _ome_tiff(path: Path, why_not: SlideUnreadableError) -> SlideReader:
    """Open an OME-TIFF that OpenSlide does not; where tifffile does not either, OpenSlide's reason is told."""
    from wsi_minugan.slides.ome.ome_tiff import open_ome_tiff

    refuse_other_colours(path)
    try:
        return _noted(open_ome_tiff(path), refuse_other_pictures(path))
    except SlideUnreadableError:
        raise why_not from None


def _refuse_contradictions(slide: OpenSlideReader) -> None:
    """Refuse what OpenSlide would read as other than it is; add what the user should know to the slide's notes."""
    path, vendor = slide.info.path, slide.info.vendor
    if vendor == "dicom":
        heads = dicom.heads_of(path)
        dicom.refuse_damaged_tables(heads)
        dicom.refuse_other_colours(heads)
    if vendor in {"generic-tiff", "aperio"}:
        refuse_other_colours(path)
    if vendor == "generic-tiff":
        _noted(slide, refuse_other_pictures(path))


def _noted(slide: R, notes: tuple[str, ...]) -> R:
    slide.info = replace(slide.info, notes=slide.info.notes + notes)
    return slide
