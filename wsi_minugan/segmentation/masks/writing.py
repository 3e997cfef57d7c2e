"""Masks written to disk: a block is a shard, so it has one writer and is written whole; what is written has its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsi_minugan.errors import OutputError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.segmentation.masks.layout import (
    CHUNK_PX,
    PATHS,
    coarse_metadata,
    halved_shapes,
    image_metadata,
    level_shapes,
    next_level,
    shard_side_px,
)
from wsi_minugan.segmentation.masks.store import Store


def create_store(path: Path, frame: Frame, block_px: int, nuclei: bool) -> None:
    """Make the store's groups and arrays; what is already there stays.

    Parameters
    ----------
    path : Path
        The store's folder.
    frame : Frame
        Analysis frame.
    block_px : int
        Side of a shard.
    nuclei : bool
        Whether nuclei get instance numbers.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    names = [n for n in PATHS if nuclei or n != "nuclei"]
    try:
        store = Store(path)
        root = zarr.open_group(store, mode="a", zarr_format=3)
        for name in names:
            _create_pyramid(root, name, frame, block_px)
        root.attrs["ome"] = image_metadata("coverage", frame, prefix="coverage/")
        labels = [n for n in names if PATHS[n][0].startswith("labels/")]
        root["labels"].attrs["ome"] = {"version": "0.5", "labels": labels}
        store.settle()
    except OSError as e:
        raise OutputError(
            f"The masks {path} cannot be written: {e.strerror or e}. Check the folder and its disk."
        ) from e


def _create_pyramid(root: zarr.Group, name: str, frame: Frame, block_px: int) -> None:
    where, dtype = PATHS[name]
    group = root.require_group(where)
    for level, shape in enumerate(level_shapes(frame)):
        if str(level) not in group:
            group.create_array(
                str(level),
                shape=shape,
                dtype=dtype,
                chunks=(CHUNK_PX, CHUNK_PX),
                shards=(shard_side_px(block_px, level),) * 2,
                compressors=ZstdCodec(level=1),
                fill_value=0,
                dimension_names=("y", "x"),
            )
    group.attrs["ome"] = image_metadata(name, frame)


def write_block(path: Path, name: str, box: Box, values: NDArray[Any]) -> dict[str, str]:
    """Write one block as whole shards, at every level of the pyramid at which it is one; an empty shard leaves no file.

    When it returns, they are on the disk and not in its cache.

    Parameters
    ----------
    path : Path
        The store.
    name : {"coverage", "mitosis_score", "classes", "mitoses", "nuclei"}
        Which array.
    box : Box
        A block of the frame, analysis px.
    values : ndarray, shape (h, w)
        Its values. A reduced pixel is one of the four below it, so no label is invented; see `layout.next_level`.

    Returns
    -------
    dict of str to str
        SHA-256 of the files written, by their paths below the store.

    Raises
    ------
    OutputError
        If the disk does not take it.
    """
    written: dict[str, str] = {}
    try:
        array = _open(path, name, 0)
        for level in range(_own_levels(array)):
            if level:
                array, values = _open(path, name, level), next_level(name, values)
            part = Box(box.y_px >> level, box.x_px >> level, *values.shape)
            array[part.slices_within(Box(0, 0, 0, 0))] = values
            written |= _settled(array)
        return written
    except OSError as e:
        raise OutputError(
            f"{path} cannot be written: {e.strerror or e}. Free some space, or check the disk."
        ) from e


def write_coarse(path: Path, name: str, values: NDArray[Any], side_um: float) -> dict[str, str]:
    """Write an image of few pixels beside the others, whole; its scale and place are in its metadata.

    When it returns, the image is on the disk. Returns the digests of its files.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        The image's name, one of `layout.COARSE`.
    values : ndarray, shape (h, w)
        Its pixels.
    side_um : float
        Side of a pixel.

    Returns
    -------
    dict of str to str
        SHA-256 of each file, by its path in the store.

    Raises
    ------
    OutputError
        If the store cannot be written.
    """
    try:
        store = Store(path)
        group = zarr.open_group(store, mode="r+").require_group(name)
        group.create_array(
            "0", data=values, chunks=(CHUNK_PX, CHUNK_PX), compressors=ZstdCodec(level=1), overwrite=True,
            dimension_names=("y", "x"), fill_value=0,
        )  # fmt: skip
        group.attrs["ome"] = coarse_metadata(name, side_um)
        return {name: digest for name, digest in store.settle().items() if not name.endswith("zarr.json")}
    except OSError as e:
        raise OutputError(
            f"{path} cannot be written: {e.strerror or e}. Free some space, or check the disk."
        ) from e


def build_pyramid(path: Path, frame: Frame) -> dict[str, str]:
    """Fill the coarse levels that blocks did not write, shard by shard, and return the digests of the files written.

    Parameters
    ----------
    path : Path
        The store, its blocks complete.
    frame : Frame
        Analysis frame.

    Returns
    -------
    dict of str to str
        SHA-256 of each file, by its path in the store.
    """
    shapes = level_shapes(frame)
    written: dict[str, str] = {}
    for name, (where, _) in PATHS.items():
        if not (path / where).is_dir():
            continue
        finest = _open(path, name, 0)
        for level in range(_own_levels(finest), len(shapes)):
            side = shard_side_px(_shard_px(finest), level)
            for top in range(0, shapes[level][0], side):
                for left in range(0, shapes[level][1], side):
                    written |= _reduce_shard(path, name, level, (top, left), side)
    return written


def _reduce_shard(path: Path, name: str, level: int, corner: tuple[int, int], side_px: int) -> dict[str, str]:
    source, target = _open(path, name, level - 1), _open(path, name, level)
    top, left = corner
    bottom, right = min(top + side_px, target.shape[0]), min(left + side_px, target.shape[1])
    out = np.zeros((bottom - top, right - left), target.dtype)
    step = max(CHUNK_PX, side_px // 2)
    for y in range(top, bottom, step):
        for x in range(left, right, step):
            part = source[2 * y : 2 * min(y + step, bottom), 2 * x : 2 * min(x + step, right)]
            out[y - top : y - top + step, x - left : x - left + step] = next_level(name, np.asarray(part))
    if out.any():
        target[top:bottom, left:right] = out
    return _settled(target)


def _settled(array: zarr.Array[Any]) -> dict[str, str]:
    store = array.store
    return store.settle() if isinstance(store, Store) else {}


def _own_levels(array: zarr.Array[Any]) -> int:
    """Return how many levels of a pyramid have shards that each lie under one block, from its finest array; coarser ones are built last."""
    block_px = _shard_px(array)
    levels = range(1, len(halved_shapes(*array.shape)))
    return next((k for k in levels if shard_side_px(block_px, k) << k != block_px), len(levels) + 1)


def _shard_px(array: zarr.Array[Any]) -> int:
    return int((array.shards or array.chunks)[0])


def _open(path: Path, name: str, level: int) -> zarr.Array[Any]:
    return zarr.open_array(Store(path), path=f"{PATHS[name][0]}/{level}", mode="r+")
