"""The second reader: TIAToolbox, for what OpenSlide cannot open (OME-TIFF, NGFF, JP2). The extra [tiatoolbox] brings it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from wsi_minugan.errors import InputError, SlideUnreadableError, TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks.levels import with_true_factors
from wsi_minugan.slides.checks.pages import DAMAGED, empty_tiles
from wsi_minugan.slides.checks.resolution import stated_in_tiff
from wsi_minugan.slides.reader import Level, SlideInfo, StatedMpp, not_brightfield


class TiatoolboxReader:
    """A slide opened by TIAToolbox.

    Parameters
    ----------
    path : Path
        The file, or an NGFF folder.

    Raises
    ------
    InputError
        If TIAToolbox is not installed.
    SlideUnreadableError
        If it does not open the file.
    NotBrightfieldError
        If the file is not of 8 bits, or not of 3 or 4 channels.
    """

    def __init__(self, path: Path) -> None:
        _refuse_tiff_other_than_rgb8(path)
        self._reader = _opened(path)
        try:
            _refuse_other_than_rgb8(path, *_stored(self._reader))
            self._downsamples = [float(d) for d in self._reader.info.level_downsamples]
            self.info = _info_of(path, self._reader.info)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as e:
            raise _not_opened(path, e) from e

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
            If TIAToolbox cannot read it.
        """
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        size = self.info.levels[level]
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return out
        factor = self._downsamples[level]
        corner = (round(inside.x_px * factor), round(inside.y_px * factor))
        try:
            pixels = self._reader.read_rect(
                corner,
                (inside.width_px, inside.height_px),
                resolution=level,
                units="level",
                coord_space="baseline",
            )
        except Exception as e:  # each of the libraries below TIAToolbox has errors of its own
            raise TileUnreadableError(
                f"{self.info.path}: the region at x {inside.x_px}, y {inside.y_px} of level {level} does not decode "
                f"({e}). Copy or scan the slide again."
            ) from e
        # What is stored was looked at, and what is read may still be other: never let numbers wrap.
        _refuse_other_than_rgb8(self.info.path, pixels.dtype, pixels.shape[2] if pixels.ndim == 3 else 1)
        out[inside.slices_within(box)] = pixels[..., :3]
        return out

    def holds(self, level: int, box: Box) -> bool:
        """Return True: TIAToolbox does not tell what is stored from what is white.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        bool
            True.
        """
        return True

    def missing(self, level: int) -> list[Box]:
        """Return the tiles of no bytes of a TIFF; of other files TIAToolbox has no list. See `SlideReader.missing`.

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
        """Release the file; TIAToolbox closes it with the reader."""
        self._reader = None


def _opened(path: Path) -> Any:
    try:
        from tiatoolbox.wsicore.wsireader import WSIReader
    except ImportError as e:
        raise InputError(
            f"--reader tiatoolbox needs TIAToolbox ({e}). Do: pip install 'wsi-minugan[tiatoolbox]' (and libgl1)."
        ) from e
    try:
        return WSIReader.open(path)
    except Exception as e:  # each of the libraries below TIAToolbox has errors of its own
        raise _not_opened(path, e) from e


def _not_opened(path: Path, why: Exception) -> SlideUnreadableError:
    if "OpenJPEG" in str(why):  # TIAToolbox reads .jp2 by it, and pip does not bring it
        return SlideUnreadableError(
            f"{path} is JPEG 2000, which needs the library OpenJPEG on this machine. Do: apt-get install libopenjp2-7, then "
            "take the slide again."
        )
    return SlideUnreadableError(
        f"{path} cannot be opened by TIAToolbox ({why}). It may be truncated, still being copied, or not a slide; "
        "copy it again, or leave out --reader tiatoolbox if it is of a format that OpenSlide opens."
    )


def _stored(reader: Any) -> tuple[DTypeLike, int]:
    """Return the data type and the number of channels of level 0; the libraries below read some by squeezing them."""
    jp2, arrays = getattr(reader, "glymur_jp2", None), getattr(reader, "level_arrays", None)
    if jp2 is not None:
        return jp2.dtype, (*jp2.shape, 1)[2]
    if arrays is not None:
        return arrays[0].array.dtype, arrays[0].shape[2]
    return np.uint8, 3


def _refuse_tiff_other_than_rgb8(path: Path) -> None:
    """Refuse a TIFF that TIAToolbox would hand to OpenSlide, which squeezes 16 bits into 8, or would not open at all."""
    kind: tuple[DTypeLike, int] | None = None
    # No TIFF, or a damaged one: TIAToolbox says so.
    with (
        contextlib.suppress(*DAMAGED),
        tifffile.TiffFile(path) as tif,
    ):
        first = tif.series[0]
        sizes: dict[str, int] = dict(zip(first.axes, first.shape, strict=True))
        kind = first.dtype, sizes.get("S") or sizes.get("C") or 1
    if kind is not None:
        _refuse_other_than_rgb8(path, *kind)


def _refuse_other_than_rgb8(path: Path, kind: DTypeLike, channels: int) -> None:
    if np.dtype(kind) != np.uint8 or channels not in {3, 4}:
        raise not_brightfield(path, channels, 8 * np.dtype(kind).itemsize)


def _info_of(path: Path, meta: Any) -> SlideInfo:
    width, height = (int(v) for v in meta.slide_dimensions)
    mpp = None if meta.mpp is None else tuple(float(v) for v in meta.mpp)
    sizes = zip(meta.level_dimensions, meta.level_downsamples, strict=True)
    stated = [StatedMpp("TIAToolbox", mpp[0], mpp[1])] if mpp else []
    return SlideInfo(
        path=path,
        width_px=width,
        height_px=height,
        levels=with_true_factors(Level(int(w), int(h), float(d)) for (w, h), d in sizes),
        mpp_x=mpp[0] if mpp else None,
        mpp_y=mpp[1] if mpp else None,
        mpp_source="TIAToolbox",
        vendor=str(meta.vendor or "unknown"),
        objective=None if meta.objective_power is None else float(meta.objective_power),
        stated=(*stated, *stated_in_tiff(path, width, height)),
    )
