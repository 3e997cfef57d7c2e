"""OME-Zarr slides, version 0.4 and 0.5 (https://ngff.openmicroscopy.org)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zarr
import zarr.errors

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.checks.levels import with_true_factors
from wsi_minugan.slides.ome.array_reader import ArrayReader, read_check
from wsi_minugan.slides.reader import Level, SlideInfo, not_brightfield

_UNITS_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_SOURCE = "OME-Zarr metadata"


def open_ngff(path: Path) -> ArrayReader:
    """Open an OME-Zarr image as a slide.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    ArrayReader
        The slide. Its resolution is that of the metadata, where these give a unit of length.

    Raises
    ------
    SlideUnreadableError
        If it is no OME-Zarr image, or one whose axes do not fit.
    NotBrightfieldError
        If it is not 8-bit RGB.
    """
    try:
        group = zarr.open_group(path, mode="r")
        attributes: Any = group.attrs.asdict()
        ome = attributes.get("ome", attributes)
        image: Mapping[str, Any] = ome["multiscales"][0]
        axes = "".join(str(a["name"]) for a in image["axes"])
        arrays: list[Any] = [group[str(d["path"])] for d in image["datasets"]]
        scales = [_scale_of(d) for d in image["datasets"]]
        read_check(axes, arrays)
        info = _info(path, arrays, axes, _mpp(image, axes, scales))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        zarr.errors.BaseZarrError,
    ) as e:
        raise SlideUnreadableError(
            f"{path} cannot be opened as a slide ({type(e).__name__}: {e}). It must be an OME-Zarr 0.4 or 0.5 image with axes y, x and c. "
            "Copy the whole folder, or convert it again."
        ) from e
    _check_pixels(path, arrays[0], axes)
    folders = [path / str(d["path"]) for d in image["datasets"]]

    def absent(level: int, box: Box) -> Iterator[Box]:
        return _absent(folders[level], arrays[level], axes, box)

    return ArrayReader(info, arrays, axes, absent, lambda: None)


def _absent(folder: Path, array: Any, axes: str, box: Box) -> Iterator[Box]:
    """Yield the chunks (or whole shards) that meet a box and of which a file is lacking: they read as one value."""
    sides = dict(zip(axes, array.shards or array.chunks, strict=True))
    shape = dict(zip(axes, array.shape, strict=True))
    whole = box.clipped(Box(0, 0, shape["y"], shape["x"]))
    if whole.height_px == 0 or whole.width_px == 0:
        return
    places = {a: range(-(-shape[a] // sides[a])) for a in axes}
    places["y"] = range(whole.y_px // sides["y"], (whole.y_end_px - 1) // sides["y"] + 1)
    places["x"] = range(whole.x_px // sides["x"], (whole.x_end_px - 1) // sides["x"] + 1)
    lacking = set()
    for place in itertools.product(*(places[a] for a in axes)):
        if not (folder / array.metadata.encode_chunk_key(place)).exists():
            lacking.add((place[axes.index("y")], place[axes.index("x")]))
    for row, column in sorted(lacking):
        yield Box(row * sides["y"], column * sides["x"], sides["y"], sides["x"]).clipped(
            Box(0, 0, shape["y"], shape["x"])
        )


def _check_pixels(path: Path, array: Any, axes: str) -> None:
    channels = array.shape[axes.index("c")]
    if channels not in (3, 4) or array.dtype != "uint8":
        raise not_brightfield(path, channels, array.dtype.itemsize * 8)


def _scale_of(dataset: Mapping[str, Any]) -> list[float]:
    found = [t["scale"] for t in dataset["coordinateTransformations"] if t.get("type") == "scale"]
    return [float(v) for v in found[0]]


def _mpp(image: Mapping[str, Any], axes: str, scales: list[list[float]]) -> tuple[float | None, float | None]:
    """Return um per pixel in x and y of the finest level; None where the unit is no length that is known."""
    units = {a["name"]: _UNITS_UM.get(str(a.get("unit"))) for a in image["axes"]}
    x, y = (units[a] for a in "xy")
    if x is None or y is None:
        return None, None
    return scales[0][axes.index("x")] * x, scales[0][axes.index("y")] * y


def _info(path: Path, arrays: list[Any], axes: str, mpp: tuple[float | None, float | None]) -> SlideInfo:
    y, x = axes.index("y"), axes.index("x")
    height, width = arrays[0].shape[y], arrays[0].shape[x]
    levels = []
    for array in arrays:
        h, w = array.shape[y], array.shape[x]
        levels.append(Level(w, h, (width / w + height / h) / 2, array.chunks[x], array.chunks[y]))
    return SlideInfo(
        path=path,
        width_px=width,
        height_px=height,
        levels=with_true_factors(levels),
        mpp_x=mpp[0],
        mpp_y=mpp[1],
        mpp_source=_SOURCE,
        vendor="ome-zarr",
        objective=None,
    )
