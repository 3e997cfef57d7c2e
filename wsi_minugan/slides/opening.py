"""Opening a slide with the reader that suits it."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.slides.reader import SlideReader


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> SlideReader:
    """Open a slide.

    Parameters
    ----------
    path : str or path
        The file (or, for some formats, one of its files).
    reader : {"auto", "openslide", "tiatoolbox"}
        "auto" decodes JPEG-tiled TIFFs directly and gives everything else to OpenSlide.

    Raises
    ------
    SlideUnreadableError
        If the file is missing or nothing opens it.
    NotBrightfieldError
        If it is not 8-bit RGB.
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
    if reader == "tiatoolbox":
        from wsi_minugan.slides.tiatoolbox_reader import TiatoolboxReader

        return TiatoolboxReader(path)
    from wsi_minugan.slides.openslide_reader import OpenSlideReader

    slide = OpenSlideReader(path)
    if reader == "auto":
        from wsi_minugan.slides.tiff_reader import direct_reader

        return direct_reader(slide) or slide
    return slide
