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
from wsi_minugan.slides.reader import OME_TIFF, Level, SlideInfo, not_brightfield

CACHE_BYTES = 64 * 2**20
MAX_TILE_AREA_PX = 2**28
_ONLY_TIATOOLBOX = (".jp2", ".zarr", *OME_TIFF)
_UM_PER_UNIT = {"centimeter": 1e4, "inch": 25400.0}


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
        _refuse_other_than_rgb8(path)
        self._slide = _opened(path)
        self.info = _info_of(path, self._slide)

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region of a level as RGB; see `SlideReader.read_level`."""
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        size = self.info.levels[level]
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return out
        # OpenSlide takes the corner in level-0 pixels; the ceiling keeps the level's pixel exact for any factor.
        corner = (math.ceil(inside.x_px * size.downsample), math.ceil(inside.y_px * size.downsample))
        try:
            rgba = np.asarray(self._slide.read_region(corner, level, (inside.width_px, inside.height_px)))
        except openslide.OpenSlideError as e:
            # After an error OpenSlide refuses all further reads of the same handle.
            self._slide.close()
            self._slide = _opened(self.info.path)
            raise TileUnreadableError(
                f"{self.info.path}: the region at x {inside.x_px}, y {inside.y_px} of level {level} does not decode ({e}). "
                "Copy or scan the slide again."
            ) from e
        out[inside.slices_within(box)] = _on_white(rgba)
        return out

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


def _refuse_other_than_rgb8(path: Path) -> None:
    """Refuse TIFFs that OpenSlide would open by squeezing 16 bits or one channel into RGB."""
    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            if "PhotometricInterpretation" not in page.tags:
                return  # no TIFF is whole without it: what the other tags say is not to be told either
            depth, samples = page.bitspersample, page.samplesperpixel
            palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError, AttributeError, TypeError):
        return  # not a TIFF, or a damaged one: OpenSlide says so
    if depth != 8 or samples not in {3, 4} or palette:
        raise not_brightfield(path, samples, depth)


def _info_of(path: Path, slide: openslide.OpenSlide) -> SlideInfo:
    properties: Mapping[str, str] = slide.properties
    mpp_x, mpp_y, source = _mpp(path, properties)
    sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
    levels = tuple(Level(w, h, d, *_tile_of(properties, k)) for k, ((w, h), d) in enumerate(sizes))
    bounds = tuple(int(_number(properties.get(f"openslide.bounds-{a}")) or 0) for a in "xy")
    return SlideInfo(
        path=path,
        width_px=levels[0].width_px,
        height_px=levels[0].height_px,
        levels=levels,
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        mpp_source=source,
        vendor=properties.get("openslide.vendor", "unknown"),
        objective=_number(properties.get("openslide.objective-power")),
        bounds_px=(bounds[0], bounds[1]),
        damaged=mpp_x is None and _is_damaged(path),
    )


def _tile_of(properties: Mapping[str, str], level: int) -> tuple[int, int]:
    """Return the (width, height) of a level's tiles; slides in strips have tiles of their own width, so these are bounded."""
    sides = (_number(properties.get(f"openslide.level[{level}].tile-{s}")) for s in ("width", "height"))
    width, height = (int(min(max(v or 256, 64), 4096)) for v in sides)
    return width, height


def _mpp(path: Path, properties: Mapping[str, str]) -> tuple[float | None, float | None, str]:
    x, y = _number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))
    if properties.get("openslide.vendor") != "generic-tiff" and x and y:
        return x, y, "vendor property"
    tags = tiff_resolution(path)
    if tags is not None:
        return (*tags, "TIFF resolution tags")
    return x, y, "vendor property"


def tiff_resolution(path: Path) -> tuple[float, float] | None:
    """Return (x, y) um/px of a TIFF's first page, or None where its tags say nothing in real units."""
    try:
        with tifffile.TiffFile(path) as tif:
            tags = tif.pages.first.tags
            unit = _UM_PER_UNIT.get({2: "inch", 3: "centimeter"}.get(int(tags["ResolutionUnit"].value), ""))
            per_unit = [tags[f"{a}Resolution"].value for a in "XY"]
            if unit is None:
                return None
            x, y = (unit * d / n for n, d in per_unit)
    except (
        tifffile.TiffFileError,
        OSError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
        TypeError,
        ZeroDivisionError,
    ):
        return None
    return x, y


def _is_damaged(path: Path) -> bool:
    """Return whether the first directory of a TIFF has tags or tiles that are not there: most often the file is cut off."""
    try:
        with tifffile.TiffFile(path) as tif:
            page, file = tif.pages.first, tif.filehandle
            file.seek(page.offset)
            (tags,) = struct.unpack(tif.tiff.tagnoformat, file.read(tif.tiff.tagnosize))
            ends = np.asarray(page.dataoffsets, np.int64) + np.asarray(page.databytecounts, np.int64)
            return bool(len(page.tags) < tags or ends.max(initial=0) > file.size)
    except (
        tifffile.TiffFileError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        struct.error,
    ):
        return False  # no TIFF; what opens it says so


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
