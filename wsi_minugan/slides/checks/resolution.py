"""All that a file says of its resolution: where two places contradict each other, one of them is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import tifffile

from wsi_minugan.slides.checks import pages
from wsi_minugan.slides.reader import MPP_AXES_TOLERANCE, StatedMpp

VENDOR, TAGS, OME = "vendor property", "TIFF resolution tags", "OME-XML"
_APERIO_REGION = re.compile(r"\[\d+,\d+ (\d+)x(\d+)\]")


def stated_in_tiff(path: Path, width_px: int, height_px: int) -> list[StatedMpp]:
    """Return what a TIFF's tags and its OME-XML say of its first picture.

    Parameters
    ----------
    path : Path
        The file; what is no TIFF says nothing.
    width_px, height_px : int
        Size of level 0, for which OME-XML must have been written.

    Returns
    -------
    list of StatedMpp
        Each with where it stands.
    """
    found: list[StatedMpp] = []
    with pages.opened(path) as tif:
        if tif is None:
            return found
        tags = _tags(tif)
        if tags is not None:
            found.append(StatedMpp(TAGS, *tags))
        images = pages.ome_images(tif)
        fitting = [i for i in images if (i.width_px, i.height_px) == (width_px, height_px)] or images[:1]
        for image in fitting[:1]:
            if image.mpp is not None:
                found.append(_scaled(OME, *image.mpp, image.width_px / width_px, image.height_px / height_px))
    return found


def _tags(tif: tifffile.TiffFile) -> tuple[float, float] | None:
    try:
        return pages.tag_mpp(tif.pages.first)
    except pages.DAMAGED:
        return None


def stated_by_vendor(
    properties: Mapping[str, str], mpp: tuple[float, float], width_px: int, height_px: int
) -> list[StatedMpp]:
    """Return a vendor's resolution, and the one that it becomes where the description tells the size of another picture.

    Parameters
    ----------
    properties : mapping of str to str
        OpenSlide's properties.
    mpp : tuple of float
        (x, y) um/px as OpenSlide has it.
    width_px, height_px : int
        Size of level 0.

    Returns
    -------
    list of StatedMpp
        One or two.
    """
    found = [StatedMpp(VENDOR, *mpp)]
    region = _APERIO_REGION.search(properties.get("tiff.ImageDescription", ""))
    if properties.get("openslide.vendor") == "aperio" and region:
        x, y = int(region[1]) / width_px, int(region[2]) / height_px
        # A part cut out keeps its resolution; only what is smaller alike in both directions was reduced.
        if abs(x - y) <= MPP_AXES_TOLERANCE * min(x, y) and x > 0:
            found.append(_scaled(VENDOR, *mpp, x, y))
    return found


def _scaled(source: str, x: float, y: float, by_x: float, by_y: float) -> StatedMpp:
    """Return a statement made for a picture of another size as it is for this one."""
    if abs(by_x - 1) <= MPP_AXES_TOLERANCE and abs(by_y - 1) <= MPP_AXES_TOLERANCE:
        return StatedMpp(source, x, y)
    return StatedMpp(f"{source}, of a picture of the size in the description", x * by_x, y * by_y)
