"""The global patch grid of a slide, and the weights with which overlapping patches are blended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import PATCH_PX
from wsi_minugan.geometry import Box


@dataclass(frozen=True)
class PatchGrid:
    """Patches at a fixed stride; the grid knows nothing of blocks.

    Patches have 256x256 analysis px. Where a model sees several at once, such a window takes a patch's place here.

    Neighbours overlap, and at the frame's edge patches reach outside.

    Attributes
    ----------
    frame_height_px, frame_width_px : int
        Size of the analysis frame.
    stride_px : int
        Distance of patches: even, and half of their side or more.
    patch_px : int
        Their side.
    """

    frame_height_px: int
    frame_width_px: int
    stride_px: int
    patch_px: int = PATCH_PX

    @classmethod
    def of_windows(cls, height_px: int, width_px: int, stride_px: int, patches_across: int) -> PatchGrid:
        """Return the grid for a model that sees squares of patches at once: these take the patches' place.

        Parameters
        ----------
        height_px, width_px : int
            Size of the analysis frame.
        stride_px : int
            Distance of patches of 256 px: even, 128 to 256.
        patches_across : int
            Side of such a square; 1 for patches one by one.

        Returns
        -------
        PatchGrid
            Windows, as many times as large. They overlap by as many px as patches of 256 px would.
        """
        side_px = PATCH_PX * patches_across
        return cls(height_px, width_px, side_px - (PATCH_PX - stride_px), side_px)

    @property
    def patches_each(self) -> int:
        """How many patches of 256 px fill one patch of this grid.

        Returns
        -------
        int
            1 but for windows of several.
        """
        return (self.patch_px // PATCH_PX) ** 2

    @property
    def overlap_px(self) -> int:
        """How far neighbouring patches overlap.

        Returns
        -------
        int
            Width of the overlap, analysis px.
        """
        return self.patch_px - self.stride_px

    @property
    def shape(self) -> tuple[int, int]:
        """Number of patches down and across.

        Returns
        -------
        tuple of int
            Rows and columns of patches.
        """
        return -(-self.frame_height_px // self.stride_px), -(-self.frame_width_px // self.stride_px)

    def box(self, i: int, j: int) -> Box:
        """Return patch (i, j) in analysis px; it may reach outside the frame.

        Parameters
        ----------
        i, j : int
            Row and column of the patch.

        Returns
        -------
        Box
            `patch_px` wide and high.
        """
        half, side = self.overlap_px // 2, self.patch_px
        return Box(i * self.stride_px - half, j * self.stride_px - half, side, side)

    def patches_for(self, box: Box) -> list[tuple[int, int]]:
        """Return every patch that reaches a box, in raster order.

        Parameters
        ----------
        box : Box
            Part of the frame, analysis px.

        Returns
        -------
        list of tuple of int
            Row and column of each patch.
        """
        rows = self._reaching(box.y_px, box.y_end_px, self.shape[0])
        columns = self._reaching(box.x_px, box.x_end_px, self.shape[1])
        return [(i, j) for i in rows for j in columns]

    def _reaching(self, start: int, end: int, count: int) -> range:
        half = self.overlap_px // 2
        first = (start + half - self.patch_px) // self.stride_px + 1
        last = (end + half - 1) // self.stride_px
        return range(max(0, first), min(count - 1, last) + 1)

    def weights(self, i: int, j: int) -> NDArray[np.uint16]:
        """Return the integer weights of patch (i, j); over all patches they sum to `total` at each pixel.

        Parameters
        ----------
        i, j : int
            Row and column of the patch.

        Returns
        -------
        ndarray of uint16, shape (patch_px, patch_px)
            0 where the patch has no say.
        """
        rows = taper(self.stride_px, i == 0, i == self.shape[0] - 1, self.patch_px)
        columns = taper(self.stride_px, j == 0, j == self.shape[1] - 1, self.patch_px)
        return np.multiply.outer(rows, columns)

    @property
    def total(self) -> int:
        """The sum of the weights of all patches at any pixel of the frame.

        Returns
        -------
        int
            A power of two.
        """
        return TAPER_TOTAL**2


TAPER_TOTAL = 16
"""What shifted tapers sum to: so small that 8-bit scores times both axes' weights fit into 16 bits, which halves the time."""


def taper(
    stride_px: int, first: bool = False, last: bool = False, patch_px: int = PATCH_PX
) -> NDArray[np.uint16]:
    """Return one axis's weights: stepped ramps where neighbours overlap, flat between them.

    Parameters
    ----------
    stride_px : int
        Distance of patches.
    first, last : bool
        Whether the patch has no neighbour before or after it; it then is flat on that side.
    patch_px : int
        Side of a patch.

    Returns
    -------
    ndarray of uint16, shape (patch_px,)
        Copies shifted by multiples of the stride sum to `TAPER_TOTAL` everywhere.
    """
    overlap = patch_px - stride_px
    weights = np.full(patch_px, TAPER_TOTAL, np.uint16)
    ramp = (TAPER_TOTAL * (2 * np.arange(overlap) + 1)) // max(1, 2 * overlap)
    if not first:
        weights[:overlap] = ramp
    if not last:
        weights[stride_px:] = TAPER_TOTAL - ramp
    return weights
