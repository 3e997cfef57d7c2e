"""The default reader: whatever OpenSlide opens, DICOM too."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from wsi_minugan.errors import SlideUnreadableError, TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks import dicom
from wsi_minugan.slides.checks.levels import with_true_factors
from wsi_minugan.slides.checks.pages import DAMAGED, empty_tiles
from wsi_minugan.slides.checks.resolution import stated_by_vendor, stated_in_tiff
from wsi_minugan.slides.checks.streams import StoredStreams
from wsi_minugan.slides.checks.tiff import refuse_other_than_rgb8
from wsi_minugan.slides.listing.kinds import why_not_opened
from wsi_minugan.slides.reader import OME_TIFF, Level, SlideInfo, StatedMpp

CACHE_BYTES = 64 * 2**20
MAX_TILE_AREA_PX = 2**28
_ONLY_TIATOOLBOX = (".jp2", ".zarr", *OME_TIFF)


class OpenSlideReader:
    """A slide opened by OpenSlide; its label and macro images are never touched.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    SlideUnreadableError
        If OpenSlide does not open it.
    NotBrightfieldError
        If it is a TIFF of 16 bits or of one channel.
    """

    def __init__(self, path: Path) -> None:
        refuse_other_than_rgb8(path)
        self._slide = _opened(path)
        # OpenSlide's own, by which it places what it reads; `info` has the true ones.
        self._downsamples = self._slide.level_downsamples
        self.info = _info_of(path, self._slide)
        self._streams = StoredStreams(self.info)

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
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        size = self.info.levels[level]
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return out
        if level == 0:
            self._streams.refuse_broken(inside)
        out[inside.slices_within(box)] = _on_white(self._rgba(level, inside))
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
            False where OpenSlide says that nothing is stored.
        """
        size = self.info.levels[level]
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return True
        # OpenSlide's transparency means 'no data': it is either full or none.
        return bool(self._rgba(level, inside)[..., 3].min() > 0)

    def _rgba(self, level: int, inside: Box) -> NDArray[np.uint8]:
        """Read a region that lies inside a level."""
        # OpenSlide takes the corner in level-0 pixels; the ceiling keeps the level's pixel exact for any factor.
        factor = self._downsamples[level]
        corner = (math.ceil(inside.x_px * factor), math.ceil(inside.y_px * factor))
        try:
            return np.asarray(self._slide.read_region(corner, level, (inside.width_px, inside.height_px)))
        except openslide.OpenSlideError as e:
            # After an error OpenSlide refuses all further reads of the same handle.
            self._slide.close()
            self._slide = _opened(self.info.path)
            raise TileUnreadableError(
                f"{self.info.path}: the region at x {inside.x_px}, y {inside.y_px} of level {level} does not decode ({e}). "
                "Copy or scan the slide again."
            ) from e

    def missing(self, level: int) -> list[Box]:
        """Return the tiles of no bytes of a TIFF; of other files OpenSlide has no list. See `SlideReader.missing`.

        Parameters
        ----------
        level : int
            Level of the pyramid.

        Returns
        -------
        list of Box
            In the level's px.
        """
        size = self.info.levels[level]
        return empty_tiles(self.info.path, size.width_px, size.height_px)

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


def _opened(path: Path) -> openslide.OpenSlide:
    try:
        slide = openslide.OpenSlide(str(path))
    except (openslide.OpenSlideError, OSError) as e:
        raise SlideUnreadableError(f"{path} cannot be opened as a slide ({e}). {_advice(path)}") from e
    _refuse_huge_tiles(path, slide)
    slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return slide


def _advice(path: Path) -> str:
    if path.name.lower().endswith(_ONLY_TIATOOLBOX) and not _is_damaged(path):
        return (
            "OpenSlide does not open this format, TIAToolbox does: add --reader tiatoolbox (once, to install it: "
            "pip install 'wsi-minugan[tiatoolbox]', and the system's package libgl1)."
        )
    if path.is_dir():
        return "It is a folder and no slide: name a slide in it."
    if (told := why_not_opened(path)) is not None:
        return told
    return (
        "It may be truncated, still being copied, or not a slide; "
        "copy it again, or convert it to a format that OpenSlide opens."
    )


def _refuse_huge_tiles(path: Path, slide: openslide.OpenSlide) -> None:
    """Refuse a damaged header before OpenSlide asks for terabytes, which ends the whole process."""
    for level in range(slide.level_count):
        key = f"openslide.level[{level}].tile-"
        sides = [_number(slide.properties.get(key + s)) or 0 for s in ("width", "height")]
        if sides[0] * sides[1] > MAX_TILE_AREA_PX:
            slide.close()
            raise SlideUnreadableError(
                f"{path} says that its tiles have {sides[0]:.0f} x {sides[1]:.0f} px: it is damaged. Copy or scan the slide again."
            )


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = rgba[..., :3]
    alpha = rgba[..., 3]
    if alpha.min() == 255:
        return rgb
    # OpenSlide's transparency means 'no data': it is either full or none.
    return np.where(alpha[..., None] > 0, rgb, np.uint8(255))


def _info_of(path: Path, slide: openslide.OpenSlide) -> SlideInfo:
    properties: Mapping[str, str] = slide.properties
    sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
    levels = with_true_factors(
        Level(w, h, d, *_tile_of(properties, k)) for k, ((w, h), d) in enumerate(sizes)
    )
    stated = _stated(path, properties, levels[0].width_px, levels[0].height_px)
    leading = next((s for s in stated if s.plausible), stated[0] if stated else None)
    bounds = tuple(int(_number(properties.get(f"openslide.bounds-{a}")) or 0) for a in "xy")
    return SlideInfo(
        path=path,
        width_px=levels[0].width_px,
        height_px=levels[0].height_px,
        levels=levels,
        mpp_x=leading.mpp_x if leading else None,
        mpp_y=leading.mpp_y if leading else None,
        mpp_source=leading.source if leading else "vendor property",
        vendor=properties.get("openslide.vendor", "unknown"),
        objective=_number(properties.get("openslide.objective-power")),
        bounds_px=(bounds[0], bounds[1]),
        damaged=leading is None and _is_damaged(path),
        stated=tuple(stated),
    )


def _tile_of(properties: Mapping[str, str], level: int) -> tuple[int, int]:
    """Return the (width, height) of a level's tiles; slides in strips have tiles of their own width, so these are bounded."""
    sides = (_number(properties.get(f"openslide.level[{level}].tile-{s}")) for s in ("width", "height"))
    width, height = (int(min(max(v or 256, 64), 4096)) for v in sides)
    return width, height


def _stated(path: Path, properties: Mapping[str, str], width_px: int, height_px: int) -> list[StatedMpp]:
    """Return all that a slide says of its resolution, what is to be believed first."""
    x, y = _number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))
    vendor = properties.get("openslide.vendor")
    found = []
    if vendor != "generic-tiff" and x and y:
        found += stated_by_vendor(properties, (x, y), width_px, height_px)
    if vendor == "dicom":
        in_mm = dicom.stated_mpp(dicom.heads_of(path), width_px)
        return found + ([in_mm] if in_mm else [])
    return found + stated_in_tiff(path, width_px, height_px)


def _is_damaged(path: Path) -> bool:
    """Return whether the first directory of a TIFF has tags or tiles that are not there: most often the file is cut off."""
    try:
        with tifffile.TiffFile(path) as tif:
            page, file = tif.pages.first, tif.filehandle
            file.seek(page.offset)
            (tags,) = struct.unpack(tif.tiff.tagnoformat, file.read(tif.tiff.tagnosize))
            ends = np.asarray(page.dataoffsets, np.int64) + np.asarray(page.databytecounts, np.int64)
            return bool(len(page.tags) < tags or ends.max(initial=0) > file.size)
    except DAMAGED:
        return False  # no TIFF; what opens it says so


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
