"""Masks read from disk: whole arrays, parts of a level, and every so many pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from wsi_minugan.errors import OutputError
from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.masks.layout import CHUNK_PX, PATHS


def names_in(path: Path) -> list[str]:
    """Return which arrays a store holds.

    Parameters
    ----------
    path : Path
        The store.

    Returns
    -------
    list of str
        In the order of the store's layout.
    """
    return [name for name, (where, _) in PATHS.items() if (path / where / "0").is_dir()]


def open_levels(path: Path) -> dict[str, list[zarr.Array[Any]]]:
    """Return the arrays of a finished store by name, finest level first, for reading only.

    Parameters
    ----------
    path : Path
        The store.

    Returns
    -------
    dict of str to list of zarr.Array
        Finest level first.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    found = {}
    try:
        for name, (where, _) in PATHS.items():
            if (path / where).is_dir():
                levels = sorted(int(p.name) for p in (path / where).iterdir() if p.name.isdigit())
                found[name] = [zarr.open_array(path, path=f"{where}/{k}", mode="r") for k in levels]
    except (OSError, ValueError, KeyError) as e:
        raise OutputError(f"The masks {path} cannot be read: {e}. Run the slide again.") from e
    return found


def read_whole(path: Path, name: str) -> NDArray[Any] | None:
    """Return an image that `writing.write_coarse` wrote; None where there is none, as in results of an earlier version.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        The image's name, one of `COARSE`.

    Returns
    -------
    ndarray or None
        Shape ``(h, w)``.
    """
    if not (path / name / "0").is_dir():
        return None
    return np.asarray(zarr.open_array(LocalStore(path, read_only=True), path=f"{name}/0", mode="r")[:])


def read_coarse(path: Path, name: str, frame: Box, step_px: int) -> NDArray[Any]:
    """Return every `step_px`-th pixel of an array, strip by strip; shape ``(ceil(h / step), ceil(w / step))``.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        Name of the array.
    frame : Box
        What to read, px of level 0 of the store.
    step_px : int
        Distance of the pixels that are taken.

    Returns
    -------
    ndarray, shape (ceil(h / step), ceil(w / step))
        Of the array's type.

    Raises
    ------
    OutputError
        If the masks are not there or cannot be read.
    """
    strips = []
    try:
        array = _open(path, name, 0)
    except (OSError, ValueError, KeyError) as e:
        raise OutputError(
            f"The masks {path} cannot be read ({e}). Give the whole result folder of a finished slide, or run that slide again."
        ) from e
    for y in range(0, frame.height_px, CHUNK_PX):
        strip = np.asarray(array[y : min(y + CHUNK_PX, frame.height_px)])
        strips.append(strip[(-y) % step_px :: step_px, ::step_px])
    return np.concatenate(strips)


def read_part(path: Path, name: str, level: int, box: Box) -> NDArray[Any]:
    """Return a part of one level of an array; the box is in that level's px and is cut at its edges.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        Name of the array.
    level : int
        Level of the pyramid; 0 is the finest.
    box : Box
        Px of that level.

    Returns
    -------
    ndarray
        Of the array's type; smaller than the box where the array ends.
    """
    array = _open(path, name, level)
    h, w = array.shape
    return np.asarray(array[box.clipped(Box(0, 0, h, w)).slices_within(Box(0, 0, 0, 0))])


def _open(path: Path, name: str, level: int) -> zarr.Array[Any]:
    return zarr.open_array(LocalStore(path, read_only=True), path=f"{PATHS[name][0]}/{level}", mode="r")
