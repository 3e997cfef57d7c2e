"""What a TIFF's pages say of themselves, read once for all checks."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from wsi_minugan.geometry import Box

_UM_PER_UNIT = {2: 25400.0, 3: 1e4}
_OME_UNITS = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4}
_SIDE_PICTURE = re.compile(r"\b(label|macro|barcode|thumbnail|overview|slide ?id)\b", re.IGNORECASE)
_REDUCED = 1
_MOST_PAGES = 512
_LONGEST_DESCRIPTION = 2**20
DAMAGED = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    struct.error,
)
"""What tifffile raises of damaged files."""


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF.

    Attributes
    ----------
    number : int
        Its place in the file, from 0.
    width_px, height_px : int
        Its size.
    reduced : bool
        Whether it says that it is a smaller copy of another, or of part of one.
    side_picture : bool
        Whether it says that it is a label, a macro picture or a thumbnail.
    """

    number: int
    width_px: int
    height_px: int
    reduced: bool
    side_picture: bool

    @property
    def area_px(self) -> int:
        """Number of pixels.

        Returns
        -------
        int
            Width times height.
        """
        return self.width_px * self.height_px

    def is_smaller_copy_of(self, other: Page) -> bool:
        """Return whether it has the shape of another page, reduced; writers often forget to say it.

        Parameters
        ----------
        other : Page
            The larger one.

        Returns
        -------
        bool
            Within rounding.
        """
        if self.width_px >= other.width_px or self.height_px >= other.height_px:
            return False
        low = max(other.width_px / (self.width_px + 1), other.height_px / (self.height_px + 1))
        high = min(
            other.width_px / max(self.width_px - 1, 0.5), other.height_px / max(self.height_px - 1, 0.5)
        )
        return low <= high


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tifffile.TiffFile | None]:
    """Open a TIFF; None where it is none, or too damaged to be opened.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    TiffFile or None
        It is closed afterwards.
    """
    try:
        tif = tifffile.TiffFile(path)
    except DAMAGED:
        yield None
        return
    with tif:
        yield tif


def pages_of(tif: tifffile.TiffFile) -> list[Page]:
    """Return the pages of a TIFF, as far as its directories can be read.

    Parameters
    ----------
    tif : TiffFile
        The open file.

    Returns
    -------
    list of Page
        In the file's order.
    """
    found: list[Page] = []
    with contextlib.suppress(*DAMAGED):
        for number, page in enumerate(tif.pages):
            if number == _MOST_PAGES:
                break
            found.append(_page(number, page.aspage()))
    return found


def empty_tiles(path: Path, width_px: int, height_px: int) -> list[Box]:
    """Return the tiles of no bytes of a level of a TIFF, as boxes in its pixels; of what is no TIFF in tiles, none.

    OpenSlide fills such tiles of an SVS with what a lower level shows, which looks whole and is too coarse for a count.

    Parameters
    ----------
    path : Path
        The file.
    width_px, height_px : int
        Size of the level.

    Returns
    -------
    list of Box
        In the level's px.
    """
    with opened(path) as tif, contextlib.suppress(*DAMAGED):
        for page in (p.aspage() for p in tif.pages) if tif is not None else ():
            if (page.imagewidth, page.imagelength) == (width_px, height_px) and page.is_tiled:
                across, h, w = -(-width_px // page.tilewidth), page.tilelength, page.tilewidth
                places = [
                    divmod(int(k), across) for k in np.flatnonzero(np.asarray(page.databytecounts) == 0)
                ]
                whole = Box(0, 0, height_px, width_px)
                return [Box(row * h, column * w, h, w).clipped(whole) for row, column in places]
    return []


def _page(number: int, page: tifffile.TiffPage) -> Page:
    said = " ".join(str(page.tags.valueof(tag, "")) for tag in ("PageName", "DocumentName"))
    first_line = str(page.description)[:_LONGEST_DESCRIPTION].splitlines()[:2]
    names = said + " " + " ".join(line for line in first_line if not line.lstrip().startswith("<"))
    return Page(
        number,
        int(page.imagewidth),
        int(page.imagelength),
        bool(int(page.subfiletype) & _REDUCED),
        bool(_SIDE_PICTURE.search(names)),
    )


def tag_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Return (x, y) um/px as a page's resolution tags have it, or None where they say nothing in real units.

    Parameters
    ----------
    page : TiffPage
        A page of a TIFF.

    Returns
    -------
    tuple of float or None
        um/px.
    """
    try:
        unit = _UM_PER_UNIT.get(int(page.tags["ResolutionUnit"].value))
        per_unit = [page.tags[f"{a}Resolution"].value for a in "XY"]
        if unit is None:
            return None
        x, y = (unit * d / n for n, d in per_unit)
    except DAMAGED:
        return None
    return x, y


@dataclass(frozen=True)
class OmeImage:
    """What OME-XML says of an image.

    Attributes
    ----------
    width_px, height_px : int
        Its size.
    mpp : tuple of float or None
        (x, y) um/px.
    side_picture : bool
        Whether its name says that it is a label, a macro picture or a thumbnail.
    """

    width_px: int
    height_px: int
    mpp: tuple[float, float] | None
    side_picture: bool = False

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height.

        Returns
        -------
        tuple of int
            In px.
        """
        return self.width_px, self.height_px


def ome_images(tif: tifffile.TiffFile) -> list[OmeImage]:
    """Return the images that a TIFF's OME-XML describes; none where it has no OME-XML that can be read.

    Parameters
    ----------
    tif : TiffFile
        The open file.

    Returns
    -------
    list of OmeImage
        In the order of the XML.
    """
    try:
        text = str(tif.pages.first.description)[:_LONGEST_DESCRIPTION]
        # Entities could expand without end; OME-XML has none.
        if "<OME" not in text or "<!ENTITY" in text or "<!DOCTYPE" in text:
            return []
        root = ElementTree.fromstring(text)  # noqa: S314 - entities are refused above
    except (*DAMAGED, ElementTree.ParseError):
        return []
    found = []
    for image in root.iter():
        if image.tag.endswith("}Image"):
            side = bool(_SIDE_PICTURE.search(image.get("Name", "")))
            found += [i for p in image if p.tag.endswith("}Pixels") for i in _ome_image(p, side)]
    return found


def _ome_image(pixels: ElementTree.Element, side: bool) -> list[OmeImage]:
    try:
        width, height = int(pixels.get("SizeX", "")), int(pixels.get("SizeY", ""))
        sizes = [float(pixels.get(f"PhysicalSize{a}", "nan")) for a in "XY"]
        units = [_OME_UNITS.get(pixels.get(f"PhysicalSize{a}Unit", "µm"), float("nan")) for a in "XY"]
    except ValueError:
        return []
    x, y = (s * u for s, u in zip(sizes, units, strict=True))
    return [OmeImage(width, height, (x, y) if np.isfinite(x) and np.isfinite(y) else None, side)]
