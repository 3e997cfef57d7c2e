"""Masks on disk: one OME-Zarr 0.5 store a slide, sharded, with a pyramid (https://ngff.openmicroscopy.org/0.5).

The root image is `coverage` (1 where the slide was analysed). A block is a shard: it has one writer and is written whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
import zarr.buffer
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from wsi_minugan.errors import OutputError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS
from wsi_minugan.segmentation.store import Store

if TYPE_CHECKING:
    from zarr.core.common import AccessModeLiteral

CHUNK_PX = 512
NUCLEUS_RGBA, MITOSIS_RGBA = [200, 40, 40, 255], [0, 200, 60, 255]
_PATHS = {
    "coverage": ("coverage", "uint8"),
    "mitosis_score": ("mitosis_score", "uint8"),
    "classes": ("labels/classes", "uint8"),
    "mitoses": ("labels/mitoses", "uint32"),
    "nuclei": ("labels/nuclei", "uint32"),
}
_BY_MAXIMUM = frozenset({"mitosis_score", "classes", "mitoses"})
"""Arrays whose reduced levels keep the largest of four pixels, so that no mitosis gets lost; the others keep the top-left one."""

_WINDOWS = {"coverage": (1, "808080"), "mitosis_score": (255, "FFFFFF")}
"""Largest value and colour of the images, without which viewers show 0 and 1 of 8 bits as black."""
COARSE = ("tissue", "density")
"""Images of few pixels."""
PLACES = (*(where for where, _ in _PATHS.values()), *COARSE)
"""The folders of the arrays, below that of the store."""
GROUPS = ("zarr.json", "labels/zarr.json")
"""The files that tell of the groups they lie in."""


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
    names = [n for n in _PATHS if nuclei or n != "nuclei"]
    try:
        store = Store(path)
        root = zarr.open_group(store, mode="a", zarr_format=3)
        for name in names:
            _create_pyramid(root, name, frame, block_px)
        root.attrs["ome"] = _multiscales("coverage", frame, prefix="coverage/") | _omero("coverage")
        labels = [n for n in names if _PATHS[n][0].startswith("labels/")]
        root["labels"].attrs["ome"] = {"version": "0.5", "labels": labels}
        store.settle()
    except OSError as e:
        raise OutputError(
            f"The masks {path} cannot be written: {e.strerror or e}. Check the folder and its disk."
        ) from e


def _create_pyramid(root: zarr.Group, name: str, frame: Frame, block_px: int) -> None:
    where, dtype = _PATHS[name]
    group = root.require_group(where)
    for level, shape in enumerate(level_shapes(frame)):
        if str(level) not in group:
            group.create_array(
                str(level),
                shape=shape,
                dtype=dtype,
                chunks=(CHUNK_PX, CHUNK_PX),
                shards=(_shards_of(block_px, level),) * 2,
                compressors=ZstdCodec(level=1),
                fill_value=0,
                dimension_names=("y", "x"),
            )
    ome = _multiscales(name, frame) | _omero(name)
    if where.startswith("labels/"):
        ome["image-label"] = {"source": {"image": "../../"}} | _colours(name)
    group.attrs["ome"] = ome


def _omero(name: str) -> dict[str, Any]:
    """Return how viewers are to show an image: its window, from 0 to the largest value; nothing for labels."""
    if name not in _WINDOWS:
        return {}
    end, colour = _WINDOWS[name]
    window = {"min": 0, "start": 0, "end": end, "max": end}
    channel = {"label": name, "color": colour, "active": True, "window": window}
    return {"omero": {"channels": [channel], "rdefs": {"model": "greyscale"}}}


def _colours(name: str) -> dict[str, Any]:
    if name != "classes":
        return {}
    return {
        "colors": [
            {"label-value": NUCLEUS, "rgba": NUCLEUS_RGBA},
            {"label-value": MITOSIS, "rgba": MITOSIS_RGBA},
        ],
        "properties": [
            {"label-value": NUCLEUS, "class": "nucleus"},
            {"label-value": MITOSIS, "class": "mitosis"},
        ],
    }


def _multiscales(name: str, frame: Frame, prefix: str = "") -> dict[str, Any]:
    datasets = []
    for level in range(len(level_shapes(frame))):
        scale = frame.mpp * 2**level
        placed: list[dict[str, Any]] = [{"type": "scale", "scale": [scale, scale]}]
        if name in _BY_MAXIMUM and level:
            # Coordinates are those of pixels' centres. A reduced pixel stands for all of its square; where it is the top-left
            # one, its centre lies where that one's does.
            placed.append({"type": "translation", "translation": [(scale - frame.mpp) / 2] * 2})
        datasets.append({"path": f"{prefix}{level}", "coordinateTransformations": placed})
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def level_shapes(frame: Frame) -> list[tuple[int, int]]:
    """Return the pyramid's shapes ``(h, w)``, finest first, until both sides are at most 512 px.

    Parameters
    ----------
    frame : Frame
        Analysis frame.

    Returns
    -------
    list of tuple of int
        Height and width of each level.
    """
    return _halved(frame.height_px, frame.width_px)


def _halved(height_px: int, width_px: int) -> list[tuple[int, int]]:
    shapes = [(height_px, width_px)]
    while max(shapes[-1]) > CHUNK_PX:
        h, w = shapes[-1]
        shapes.append((-(-h // 2), -(-w // 2)))
    return shapes


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
        Its values. A reduced pixel is one of the four below it, so no label is invented; see `next_level`.

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


def next_level(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return the next level of an array, shape ``(ceil(h / 2), ceil(w / 2))``.

    Of scores, classes and mitoses a pixel is the largest of four, so that each mitosis stays to be seen; of coverage and nuclei the
    top-left one, which keeps their share of the area.

    Parameters
    ----------
    name : str
        Name of the array.
    values : ndarray, shape (h, w)
        A level of it.

    Returns
    -------
    ndarray, shape (ceil(h / 2), ceil(w / 2))
        Of the same type.
    """
    if name not in _BY_MAXIMUM:
        return np.ascontiguousarray(values[::2, ::2])
    even = np.pad(values, [(0, side % 2) for side in values.shape])
    rows = np.maximum(even[::2], even[1::2])
    return np.ascontiguousarray(np.maximum(rows[:, ::2], rows[:, 1::2]))


def write_coarse(path: Path, name: str, values: NDArray[Any], side_um: float) -> dict[str, str]:
    """Write an image of few pixels beside the others, whole; its scale and place are in its metadata.

    When it returns, the image is on the disk. Returns the digests of its files.

    Parameters
    ----------
    path : Path
        The store.
    name : str
        The image's name, one of `COARSE`.
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
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
        place = [
            {"type": "scale", "scale": [side_um, side_um]},
            # The first pixel's centre, where those of the other images lie at half of a pixel of theirs.
            {"type": "translation", "translation": [side_um / 2, side_um / 2]},
        ]
        datasets = [{"path": "0", "coordinateTransformations": place}]
        ome: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [ome]}
        return {name: digest for name, digest in store.settle().items() if not name.endswith("zarr.json")}
    except OSError as e:
        raise OutputError(
            f"{path} cannot be written: {e.strerror or e}. Free some space, or check the disk."
        ) from e


def read_whole(path: Path, name: str) -> NDArray[Any] | None:
    """Return an image that `write_coarse` wrote; None where there is none, as in results of an earlier version.

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


def _settled(array: zarr.Array[Any]) -> dict[str, str]:
    store = array.store
    return store.settle() if isinstance(store, Store) else {}


def _own_levels(array: zarr.Array[Any]) -> int:
    """Return how many levels of a pyramid have shards that each lie under one block, from its finest array; coarser ones are built last."""
    block_px = _shard_px(array)
    levels = range(1, len(_halved(*array.shape)))
    return next((k for k in levels if _shards_of(block_px, k) << k != block_px), len(levels) + 1)


def _shard_px(array: zarr.Array[Any]) -> int:
    return int((array.shards or array.chunks)[0])


def _shards_of(block_px: int, level: int) -> int:
    """Return the side of a level's shards: half a block's for each level, while that is a whole number of chunks."""
    side = block_px >> level
    return side if side >= CHUNK_PX and side % CHUNK_PX == 0 else block_px


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
        array = _open(path, name, 0, "r")
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
    array = _open(path, name, level, "r")
    h, w = array.shape
    return np.asarray(array[box.clipped(Box(0, 0, h, w)).slices_within(Box(0, 0, 0, 0))])


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
    return [name for name, (where, _) in _PATHS.items() if (path / where / "0").is_dir()]


def _open(path: Path, name: str, level: int, mode: AccessModeLiteral = "r+") -> zarr.Array[Any]:
    store = LocalStore(path, read_only=True) if mode == "r" else Store(path)
    return zarr.open_array(store, path=f"{_PATHS[name][0]}/{level}", mode=mode)


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
        for name, (where, _) in _PATHS.items():
            if (path / where).is_dir():
                levels = sorted(int(p.name) for p in (path / where).iterdir() if p.name.isdigit())
                found[name] = [zarr.open_array(path, path=f"{where}/{k}", mode="r") for k in levels]
    except (OSError, ValueError, KeyError) as e:
        raise OutputError(f"The masks {path} cannot be read: {e}. Run the slide again.") from e
    return found


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
    for name, (where, _) in _PATHS.items():
        if not (path / where).is_dir():
            continue
        finest = _open(path, name, 0)
        for level in range(_own_levels(finest), len(shapes)):
            side = _shards_of(_shard_px(finest), level)
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
