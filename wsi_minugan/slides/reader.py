"""The reader protocol, and opening a slide by path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import MppError, NotBrightfieldError
from wsi_minugan.geometry import Box

MPP_MIN, MPP_MAX = 0.05, 2.0
MPP_AXES_TOLERANCE = 0.02
OME_TIFF = (".ome.tif", ".ome.tiff")


@dataclass(frozen=True)
class Level:
    """One level of a slide's pyramid.

    Attributes
    ----------
    width_px, height_px : int
        Size in the level's own pixels.
    downsample : float
        Level-0 pixels per pixel of this level.
    tile_width_px, tile_height_px : int
        Size of the tiles it is stored in; 256 where the file does not say.
    """

    width_px: int
    height_px: int
    downsample: float
    tile_width_px: int = 256
    tile_height_px: int = 256


@dataclass(frozen=True)
class SlideInfo:
    """All that leaves a slide's metadata; a patient's name may hide in the rest.

    Attributes
    ----------
    path : Path
        The file.
    width_px, height_px : int
        Level-0 size.
    levels : tuple of Level
        The pyramid, finest first.
    mpp_x, mpp_y : float or None
        um/px of level 0 as the file says.
    mpp_source : str
        Where these came from.
    vendor : str
        As the reader names it.
    objective : float or None
        Nominal magnification.
    bounds_px : tuple of int
        (x, y) of the non-empty region's corner, level-0 px; (0, 0) where the file says nothing.
    damaged : bool
        Whether a file that does not say its resolution is cut off or damaged, which may be why.
    """

    path: Path
    width_px: int
    height_px: int
    levels: tuple[Level, ...]
    mpp_x: float | None
    mpp_y: float | None
    mpp_source: str
    vendor: str
    objective: float | None
    bounds_px: tuple[int, int] = (0, 0)
    damaged: bool = False


class SlideReader(Protocol):
    """Pixels of one open slide."""

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region.

        Parameters
        ----------
        level : int
            Pyramid level.
        box : Box
            Region in that level's own pixels; may reach outside the slide.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB; white outside the slide and where it is transparent.

        Raises
        ------
        TileUnreadableError
            If a part of the region does not decode.
        """

    def close(self) -> None:
        """Release the file."""


def not_brightfield(path: Path, channels: int, depth: int) -> NotBrightfieldError:
    """Return the error for an image of other channels or another depth than 8-bit RGB, the same from every reader.

    Parameters
    ----------
    path : Path
        The slide.
    channels : int
        How many it has.
    depth : int
        Bits of each.
    """
    return NotBrightfieldError(
        f"{path} has {channels} channel(s) of {depth} bits. This program analyses brightfield H&E in 8-bit RGB; "
        "fluorescence and 16-bit images are not supported."
    )


def resolve_mpp(info: SlideInfo, given: float | None, otherwise: float | None = None) -> tuple[float, str]:
    """Return um/px of level 0 and where it came from.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    given : float, optional
        The user's value for this slide, from the CSV of slides, which wins.
    otherwise : float, optional
        The user's value for slides that say nothing plausible; it must not turn a 20x slide among others into a 40x one.

    Raises
    ------
    MppError
        If no plausible value is known (0.05 to 2 um/px, both axes within 2 %).
    """
    if given is not None:
        return _plausible(given, info, "the column mpp of the CSV of slides")
    try:
        return _own_mpp(info)
    except MppError:
        if otherwise is None:
            raise
        return _plausible(otherwise, info, "--mpp")


def _plausible(mpp: float, info: SlideInfo, where: str) -> tuple[float, str]:
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise MppError(f"{mpp:g} um/px, given for {info.path}, is not plausible (0.05 to 2). Check {where}.")
    return mpp, "given by the user"


def _own_mpp(info: SlideInfo) -> tuple[float, str]:
    hint = "Give the resolution with --mpp, or in the column mpp of a CSV of slides."
    if info.damaged:
        hint = "It is cut off or damaged: copy it again. If its pixels are whole, give the resolution with --mpp."
    elif info.path.name.lower().endswith(OME_TIFF):
        hint += " Of an OME-TIFF --reader tiatoolbox finds it."
    if info.mpp_x is None or info.mpp_y is None:
        raise MppError(f"{info.path} does not say its resolution. {hint}")
    if not all(MPP_MIN <= v <= MPP_MAX for v in (info.mpp_x, info.mpp_y)):
        raise MppError(
            f"{info.path} says {info.mpp_x:g} x {info.mpp_y:g} um/px, which is not plausible (0.05 to 2). {hint}"
        )
    if abs(info.mpp_x - info.mpp_y) > MPP_AXES_TOLERANCE * min(info.mpp_x, info.mpp_y):
        raise MppError(f"{info.path} has unequal resolutions: {info.mpp_x:g} x {info.mpp_y:g} um/px. {hint}")
    return (info.mpp_x + info.mpp_y) / 2, info.mpp_source
