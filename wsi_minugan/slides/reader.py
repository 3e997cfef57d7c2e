"""The reader protocol, what is known of a slide, and which resolution it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import MppError, NotBrightfieldError
from wsi_minugan.geometry import Box

MPP_MIN, MPP_MAX = 0.05, 2.0
MPP_AXES_TOLERANCE = 0.02
MPP_AGREE_TOLERANCE = 0.05
"""Relative difference up to which two statements of one slide's resolution agree: as far as it would be analysed as it is."""

_UM_TIMES_MAGNIFICATION = (4.0, 25.0)
"""Bounds of um/px times nominal magnification: 10 on most scanners, 4.7 with a 20x objective with a 2x adapter, 20 on a halved copy."""

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
    usable : bool
        Whether it shows what level 0 shows; overviews are made from a finer level where not.
    """

    width_px: int
    height_px: int
    downsample: float
    tile_width_px: int = 256
    tile_height_px: int = 256
    usable: bool = True


@dataclass(frozen=True)
class StatedMpp:
    """One statement of a file on its resolution.

    Attributes
    ----------
    source : str
        What states it, for messages.
    mpp_x, mpp_y : float
        um/px of level 0.
    """

    source: str
    mpp_x: float
    mpp_y: float

    @property
    def plausible(self) -> bool:
        """Whether it can be a slide's: 0.05 to 2 um/px, both axes within 2 %.

        Returns
        -------
        bool
            Both must hold.
        """
        x, y = self.mpp_x, self.mpp_y
        inside = MPP_MIN <= x <= MPP_MAX and MPP_MIN <= y <= MPP_MAX
        return inside and abs(x - y) <= MPP_AXES_TOLERANCE * min(x, y)

    @property
    def mpp(self) -> float:
        """The mean of both axes.

        Returns
        -------
        float
            um/px.
        """
        return (self.mpp_x + self.mpp_y) / 2

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.source}: {self.mpp:.4g} um/px"


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
    stated : tuple of StatedMpp
        All that the file says of its resolution, in as many places as it does.
    notes : tuple of str
        What was seen in the file that the user should know: pictures that are not read, levels that are not used.
    busy_px : tuple of tuple of int
        Places (x, y), level-0 px, at which level 0 took most bytes, one for each part of the slide; empty where this is not known.
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
    stated: tuple[StatedMpp, ...] = ()
    notes: tuple[str, ...] = ()
    busy_px: tuple[tuple[int, int], ...] = ()


class SlideReader(Protocol):
    """Pixels of one open slide."""

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide, read when it was opened.

        Returns
        -------
        SlideInfo
            Size, levels, resolution, and where these come from.
        """

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region.

        Parameters
        ----------
        level : int
            Level of the pyramid; 0 is the finest.
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

    def holds(self, level: int, box: Box) -> bool:
        """Return whether all of a region is stored; what is not stored reads as white.

        Parameters
        ----------
        level : int
            Level of the pyramid; 0 is the finest.
        box : Box
            Region, in the level's px.

        Returns
        -------
        bool
            False where a part is known to have no data. True where the file does not tell.
        """

    def missing(self, level: int) -> list[Box]:
        """Return the tiles of a level that are known to hold no data.

        Parameters
        ----------
        level : int
            Level of the pyramid; 0 is the finest.

        Returns
        -------
        list of Box
            Tiles, in the level's px. Empty where nothing is missing, and where this is not known.
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

    Returns
    -------
    NotBrightfieldError
        To be raised.
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
        The user's value for slides that say nothing plausible, or contradict themselves; it must not turn a 20x slide among others
        into a 40x one.

    Returns
    -------
    mpp : float
        um per level-0 pixel.
    source : str
        In words, for the manifest.

    Raises
    ------
    MppError
        If no plausible value is known (0.05 to 2 um/px, both axes within 2 %), or the slide says two.
    """
    if given is not None:
        return _plausible(given, info, "the column mpp of the CSV of slides")
    try:
        return _own_mpp(info)
    except MppError:
        if otherwise is None:
            raise
        return _plausible(otherwise, info, "--mpp")


def unused_mpp(info: SlideInfo, mpp: float, otherwise: float | None, given: float | None) -> str | None:
    """Return a sentence where a slide does not have the resolution of --mpp, which is for others; None where there is nothing to say.

    Parameters
    ----------
    info : SlideInfo
        The slide.
    mpp : float
        um/px with which it is analysed.
    otherwise : float or None
        The value of --mpp.
    given : float or None
        The value of the CSV of slides.

    Returns
    -------
    str or None
        The sentence.
    """
    if otherwise is None or math.isclose(mpp, otherwise, rel_tol=1e-6):
        return None
    said = "the CSV of slides says" if given is not None else f"the slide says ({info.mpp_source})"
    return (
        f"--mpp {otherwise:g} was not used: {said} {mpp:.4g} um/px. --mpp is for slides that say nothing plausible; "
        "to overrule a slide, use the column mpp of a CSV of slides."
    )


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
    leading = StatedMpp(info.mpp_source, info.mpp_x, info.mpp_y)
    _refuse_contradictions(info, leading)
    return leading.mpp, info.mpp_source


def _refuse_contradictions(info: SlideInfo, leading: StatedMpp) -> None:
    against = next((str(s) for s in info.stated if s.plausible and not _agree(s.mpp, leading.mpp)), None)
    low, high = _UM_TIMES_MAGNIFICATION
    if against is None and info.objective and not low <= leading.mpp * info.objective <= high:
        against = f"magnification {info.objective:g}x: about {10 / info.objective:.2g} um/px"
    if against is not None:
        raise MppError(
            f"{info.path} contradicts itself on its resolution ({leading}; {against}). Find out which is right, then give it with "
            "--mpp, or in the column mpp of a CSV of slides."
        )


def _agree(one: float, other: float) -> bool:
    return abs(one - other) <= MPP_AGREE_TOLERANCE * min(one, other)
