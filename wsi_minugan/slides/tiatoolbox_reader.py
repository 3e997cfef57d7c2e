"""The second reader: TIAToolbox, for what OpenSlide cannot open (OME-TIFF, NGFF, JP2). The extra [tiatoolbox] brings it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import InputError, SlideUnreadableError, TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.reader import Level, SlideInfo

log = logging.getLogger(__name__)


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
    """

    def __init__(self, path: Path) -> None:
        try:
            from tiatoolbox.wsicore.wsireader import WSIReader
        except ImportError as e:
            raise InputError(
                f"--reader tiatoolbox needs TIAToolbox ({e}). Do: pip install 'wsi-minugan[tiatoolbox]' (and libgl1)."
            ) from e
        try:
            self._reader: Any = WSIReader.open(path)
            meta = self._reader.info
        # TIAToolbox hands on whatever the library below it raises for a file that is not as it should be.
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as e:
            raise SlideUnreadableError(f"{path} cannot be opened by TIAToolbox ({e}). Check the file.") from e
        width, height = (int(v) for v in meta.slide_dimensions)
        mpp = None if meta.mpp is None else tuple(float(v) for v in meta.mpp)
        self.info = SlideInfo(
            path=path,
            width_px=width,
            height_px=height,
            levels=tuple(
                Level(int(w), int(h), float(d))
                for (w, h), d in zip(meta.level_dimensions, meta.level_downsamples, strict=True)
            ),
            mpp_x=mpp[0] if mpp else None,
            mpp_y=mpp[1] if mpp else None,
            mpp_source="TIAToolbox",
            vendor=str(meta.vendor or "unknown"),
            objective=None if meta.objective_power is None else float(meta.objective_power),
        )

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region of a level as RGB; see `SlideReader.read_level`."""
        out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
        size = self.info.levels[level]
        inside = box.clipped(Box(0, 0, size.height_px, size.width_px))
        if inside.height_px == 0 or inside.width_px == 0:
            return out
        corner = (round(inside.x_px * size.downsample), round(inside.y_px * size.downsample))
        try:
            pixels = self._reader.read_rect(
                corner,
                (inside.width_px, inside.height_px),
                resolution=level,
                units="level",
                coord_space="baseline",
            )
        except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as e:
            raise TileUnreadableError(
                f"{self.info.path}: the region at x {inside.x_px}, y {inside.y_px} of level {level} does not decode "
                f"({e}). Copy or scan the slide again."
            ) from e
        out[inside.slices_within(box)] = np.asarray(pixels, np.uint8)[..., :3]
        return out

    def close(self) -> None:
        """Release the file; TIAToolbox closes it with the reader."""
        self._reader = None
