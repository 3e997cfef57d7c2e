"""Value types of the two frames: level-0 pixels and analysis pixels.

Level-0 frame: pixels of the slide's full-resolution level. Analysis frame: pixels at the model's resolution.
Both have x to the right, y down, and their origin at the top-left corner of the slide's top-left pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

UM2_PER_MM2 = 1e6
GRID_PX = 0.01
"""Grid of the coordinates in files, level-0 px: QuPath's rules for valid rings hold on it."""


@dataclass(frozen=True, order=True)
class Box:
    """A half-open rectangle of pixels in one frame.

    Attributes
    ----------
    y_px, x_px : int
        Top-left corner; may be negative where a patch reaches outside the slide.
    height_px, width_px : int
        Extent.
    """

    y_px: int
    x_px: int
    height_px: int
    width_px: int

    @property
    def y_end_px(self) -> int:
        """First row below the box.

        Returns
        -------
        int
            In the box's frame.
        """
        return self.y_px + self.height_px

    @property
    def x_end_px(self) -> int:
        """First column right of the box.

        Returns
        -------
        int
            In the box's frame.
        """
        return self.x_px + self.width_px

    def grown(self, margin_px: int) -> Box:
        """Return the box, larger by `margin_px` on every side.

        Parameters
        ----------
        margin_px : int
            By how much; below 0 it shrinks.

        Returns
        -------
        Box
            In the same frame.
        """
        return Box(
            self.y_px - margin_px,
            self.x_px - margin_px,
            self.height_px + 2 * margin_px,
            self.width_px + 2 * margin_px,
        )

    def clipped(self, other: Box) -> Box:
        """Return the intersection with `other`; its extent is zero where they do not meet.

        Parameters
        ----------
        other : Box
            In the same frame.

        Returns
        -------
        Box
            In the same frame.

        Examples
        --------
        >>> Box(0, 0, 10, 10).clipped(Box(5, 8, 10, 10))
        Box(y_px=5, x_px=8, height_px=5, width_px=2)
        """
        y, x = max(self.y_px, other.y_px), max(self.x_px, other.x_px)
        h = max(0, min(self.y_end_px, other.y_end_px) - y)
        w = max(0, min(self.x_end_px, other.x_end_px) - x)
        return Box(y, x, h, w)

    def slices_within(self, outer: Box) -> tuple[slice, slice]:
        """Return the (row, column) slices of this box in an array that covers `outer`.

        Parameters
        ----------
        outer : Box
            What the array covers, in the same frame.

        Returns
        -------
        tuple of slice
            Rows, then columns.
        """
        y, x = self.y_px - outer.y_px, self.x_px - outer.x_px
        return slice(y, y + self.height_px), slice(x, x + self.width_px)


@dataclass(frozen=True)
class Frame:
    """How analysis pixels lie on level-0 pixels.

    Attributes
    ----------
    level0_width_px, level0_height_px : int
        Size of the slide.
    level0_mpp : float
        Micrometres per level-0 pixel.
    scale : float
        Level-0 pixels per analysis pixel; exactly 1.0 where the slide is analysed as it is.
    width_px, height_px : int
        Size in analysis pixels.
    """

    level0_width_px: int
    level0_height_px: int
    level0_mpp: float
    scale: float
    width_px: int
    height_px: int

    @property
    def mpp(self) -> float:
        """Micrometres per analysis pixel.

        Returns
        -------
        float
            um per analysis pixel.
        """
        return self.level0_mpp * self.scale

    @property
    def box(self) -> Box:
        """The whole slide in analysis pixels.

        Returns
        -------
        Box
            From 0, 0.
        """
        return Box(0, 0, self.height_px, self.width_px)


def analysis_frame(
    width_px: int, height_px: int, mpp: float, target_mpp: float, tolerance: float = 0.05
) -> Frame:
    """Return the analysis frame of a slide.

    Parameters
    ----------
    width_px, height_px : int
        Level-0 size.
    mpp : float
        Level-0 resolution in um/px.
    target_mpp : float
        The model's resolution in um/px.
    tolerance : float
        Relative difference up to which a slide is analysed as it is.

    Returns
    -------
    Frame
        Its size is that of the slide over the scale, rounded, and 1 px at least.

    Examples
    --------
    >>> analysis_frame(1000, 800, mpp=0.5, target_mpp=0.25).width_px
    2000
    """
    scale = target_mpp / mpp
    if abs(scale - 1.0) <= tolerance:
        scale = 1.0
    return Frame(
        level0_width_px=width_px,
        level0_height_px=height_px,
        level0_mpp=mpp,
        scale=scale,
        width_px=max(1, round(width_px / scale)),
        height_px=max(1, round(height_px / scale)),
    )


def evenly(count: int, most: int) -> list[int]:
    """Return indices spread evenly over a list, the first and the last among them.

    Parameters
    ----------
    count : int
        Length of the list.
    most : int
        How many indices at most.

    Returns
    -------
    list of int
        Ascending; all of them where the list is no longer than that.

    Examples
    --------
    >>> evenly(10, 4)
    [0, 3, 6, 9]
    """
    found: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()
    return found


def blocks_of(frame: Frame, block_px: int) -> Iterator[Box]:
    """Yield the blocks of a frame in raster order; those at the right and bottom edge are cut off there.

    Parameters
    ----------
    frame : Frame
        Analysis frame.
    block_px : int
        Side of a block, analysis px.

    Yields
    ------
    Box
        Analysis px.

    Examples
    --------
    >>> frame = analysis_frame(5000, 4096, mpp=0.25, target_mpp=0.25)
    >>> [box.width_px for box in blocks_of(frame, 4096)]
    [4096, 904]
    """
    for y in range(0, frame.height_px, block_px):
        for x in range(0, frame.width_px, block_px):
            yield Box(y, x, min(block_px, frame.height_px - y), min(block_px, frame.width_px - x))
