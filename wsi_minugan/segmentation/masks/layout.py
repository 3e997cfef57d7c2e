"""How masks lie on disk: one OME-Zarr 0.5 store a slide, its arrays, their levels, and what viewers read of them.

The root image is `coverage` (1 where the slide was analysed). See https://ngff.openmicroscopy.org/0.5. Nothing here loads Zarr.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Frame
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS

CHUNK_PX = 512
NUCLEUS_RGBA, MITOSIS_RGBA = [200, 40, 40, 255], [0, 200, 60, 255]
PATHS = {
    "coverage": ("coverage", "uint8"),
    "mitosis_score": ("mitosis_score", "uint8"),
    "classes": ("labels/classes", "uint8"),
    "mitoses": ("labels/mitoses", "uint32"),
    "nuclei": ("labels/nuclei", "uint32"),
}
"""By name: the folder of an array below that of the store, and its type."""
_BY_MAXIMUM = frozenset({"mitosis_score", "classes", "mitoses"})
"""Arrays whose reduced levels keep the largest of four pixels, so that no mitosis gets lost; the others keep the top-left one."""

_WINDOWS = {"coverage": (1, "808080"), "mitosis_score": (255, "FFFFFF")}
"""Largest value and colour of the images, without which viewers show 0 and 1 of 8 bits as black."""
COARSE = ("tissue", "density")
"""Images of few pixels."""
PLACES = (*(where for where, _ in PATHS.values()), *COARSE)
"""The folders of the arrays, below that of the store."""
GROUPS = ("zarr.json", "labels/zarr.json")
"""The files that tell of the groups they lie in."""


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
    return halved_shapes(frame.height_px, frame.width_px)


def halved_shapes(height_px: int, width_px: int) -> list[tuple[int, int]]:
    """Return the shapes of a pyramid over an array ``(height_px, width_px)``.

    Parameters
    ----------
    height_px, width_px : int
        Sides of the finest level.

    Returns
    -------
    list of tuple of int
        Height and width of each level, finest first.
    """
    shapes = [(height_px, width_px)]
    while max(shapes[-1]) > CHUNK_PX:
        h, w = shapes[-1]
        shapes.append((-(-h // 2), -(-w // 2)))
    return shapes


def shard_side_px(block_px: int, level: int) -> int:
    """Return the side of a level's shards: half a block's for each level, while that is a whole number of chunks.

    Parameters
    ----------
    block_px : int
        Side of a block, which is a shard of the finest level.
    level : int
        Level of the pyramid; 0 is the finest.

    Returns
    -------
    int
        In px of that level.
    """
    side = block_px >> level
    return side if side >= CHUNK_PX and side % CHUNK_PX == 0 else block_px


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


def image_metadata(name: str, frame: Frame, prefix: str = "") -> dict[str, Any]:
    """Return an array's OME metadata: its levels with scale and place, and how viewers are to show it.

    Parameters
    ----------
    name : str
        Name of the array.
    frame : Frame
        Analysis frame.
    prefix : str
        Goes before the levels' paths.

    Returns
    -------
    dict of str to any
        The value of ``ome`` in the group's attributes.
    """
    ome = _multiscales(name, frame, prefix) | _omero(name)
    if PATHS[name][0].startswith("labels/") and not prefix:
        ome["image-label"] = {"source": {"image": "../../"}} | _colours(name)
    return ome


def _multiscales(name: str, frame: Frame, prefix: str) -> dict[str, Any]:
    datasets = []
    for level in range(len(level_shapes(frame))):
        scale = frame.mpp * 2**level
        placed: list[dict[str, Any]] = [{"type": "scale", "scale": [scale, scale]}]
        if name in _BY_MAXIMUM and level:
            # Coordinates are those of pixels' centres. A reduced pixel stands for all of its square; where it is the top-left
            # one, its centre lies where that one's does.
            placed.append({"type": "translation", "translation": [(scale - frame.mpp) / 2] * 2})
        datasets.append({"path": f"{prefix}{level}", "coordinateTransformations": placed})
    return _images(name, datasets)


def _images(name: str, datasets: list[dict[str, Any]]) -> dict[str, Any]:
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def coarse_metadata(name: str, side_um: float) -> dict[str, Any]:
    """Return the OME metadata of an image of few pixels.

    Parameters
    ----------
    name : str
        The image's name, one of `COARSE`.
    side_um : float
        Side of a pixel.

    Returns
    -------
    dict of str to any
        The value of ``ome`` in the group's attributes.
    """
    place = [
        {"type": "scale", "scale": [side_um, side_um]},
        # The first pixel's centre, where those of the other images lie at half of a pixel of theirs.
        {"type": "translation", "translation": [side_um / 2, side_um / 2]},
    ]
    return _images(name, [{"path": "0", "coordinateTransformations": place}])


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
