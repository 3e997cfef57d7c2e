"""OME-TIFF that OpenSlide does not open: planes in strips, colours in planes of their own, other codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import tifffile
import zarr

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks.levels import with_true_factors
from wsi_minugan.slides.checks.pages import DAMAGED, empty_tiles, ome_images
from wsi_minugan.slides.checks.resolution import stated_in_tiff
from wsi_minugan.slides.ome.array_reader import ArrayReader, read_check
from wsi_minugan.slides.reader import Level, SlideInfo, not_brightfield


def open_ome_tiff(path: Path) -> ArrayReader:
    """Open the first image of an OME-TIFF as a slide.

    Parameters
    ----------
    path : Path
        The file. Images that it keeps in other files are not followed.

    Returns
    -------
    ArrayReader
        The slide. Its resolution is that of the OME-XML.

    Raises
    ------
    SlideUnreadableError
        If tifffile does not open it, or its axes do not fit.
    NotBrightfieldError
        If it is not 8-bit RGB.
    """
    try:
        tif = tifffile.TiffFile(path, _multifile=False)
    except (OSError, *DAMAGED) as e:
        raise _unreadable(path, e) from e
    try:
        images = ome_images(tif)
        if not images:
            raise ValueError("it has no OME-XML")
        series = tif.series[0]
        axes = series.axes.lower().replace("s", "c")
        levels = [zarr.open_array(tif.aszarr(series=0, level=k), mode="r") for k in range(len(series.levels))]
        read_check(axes, levels)
        channels, depth = levels[0].shape[axes.index("c")], levels[0].dtype.itemsize * 8
        if channels not in (3, 4) or depth != 8:
            raise not_brightfield(path, channels, depth)
        info = _info(path, levels, axes, images[0].mpp)
        return ArrayReader(
            info, levels, axes, partial(_absent, cache(partial(_empty_tiles, info))), tif.close
        )
    except (OSError, KeyError, TypeError, AttributeError, ValueError, *DAMAGED) as e:
        tif.close()
        raise _unreadable(path, e) from e
    except BaseException:
        tif.close()
        raise


def _empty_tiles(info: SlideInfo, level: int) -> list[Box]:
    size = info.levels[level]
    return empty_tiles(info.path, size.width_px, size.height_px)


def _absent(empty: Callable[[int], list[Box]], level: int, box: Box) -> Iterator[Box]:
    for tile in empty(level):
        meeting = tile.clipped(box)
        if meeting.height_px and meeting.width_px:
            yield tile


def _unreadable(path: Path, error: Exception) -> SlideUnreadableError:
    return SlideUnreadableError(
        f"{path} cannot be opened as a slide ({type(error).__name__}: {error}). It must be an OME-TIFF of one 8-bit RGB image. "
        "If it is cut off, copy it again."
    )


def _info(path: Path, levels: list[Any], axes: str, mpp: tuple[float, float] | None) -> SlideInfo:
    y, x = axes.index("y"), axes.index("x")
    height, width = levels[0].shape[y], levels[0].shape[x]
    return SlideInfo(
        path=path,
        width_px=width,
        height_px=height,
        levels=with_true_factors(
            Level(
                a.shape[x],
                a.shape[y],
                (width / a.shape[x] + height / a.shape[y]) / 2,
                a.chunks[x],
                a.chunks[y],
            )
            for a in levels
        ),
        mpp_x=mpp[0] if mpp else None,
        mpp_y=mpp[1] if mpp else None,
        mpp_source="OME-XML",
        vendor="ome-tiff",
        objective=None,
        stated=tuple(stated_in_tiff(path, width, height)),
    )
