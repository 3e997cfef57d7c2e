"""A reader for napari (https://napari.org): a result folder as layers, scaled in micrometres."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_minugan.api.masks import Mask
from wsi_minugan.api.result import Result
from wsi_minugan.errors import MinuganError
from wsi_minugan.outputs.manifest import MANIFEST

Layer = tuple[Any, dict[str, Any], str]
_UNIT = ("micrometer", "micrometer")
_GREEN, _ORANGE = "#00c83c", "#ffaa00"


def napari_get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """Return the reader, if a path is the result folder of one slide; else None.

    Parameters
    ----------
    path : str or list of str
        What the user opened.

    Returns
    -------
    callable or None
        `read_folder` for a slide's results.
    """
    folder = Path(path[0] if isinstance(path, list) else path)
    return read_folder if (folder / MANIFEST).is_file() else None


def read_folder(path: str | list[str]) -> list[Layer]:
    """Return the layers of one slide's result folder.

    Parameters
    ----------
    path : str or list of str
        ``OUT/SLIDE``.

    Returns
    -------
    list of tuple
        (data, settings, kind) of each layer, as napari's readers return them.
    """
    folder = Path(path[0] if isinstance(path, list) else path)
    return layers_of(Result.open(folder), _slide_of(folder))


def layers_of(result: Result, slide: str | os.PathLike[str] | None = None) -> list[Layer]:
    """Return a result as napari's layer tuples ``(data, options, type)``.

    Parameters
    ----------
    result : Result
        The results of one slide.
    slide : str or path, optional
        The slide, to lie below them.

    Returns
    -------
    list of tuple
        The slide, the score (hidden), classes, instance numbers (hidden), outlines of mitoses, and the hot spot.
        Every layer is scaled in micrometres, so all lie upon each other.
    """
    masks, mpp = result.masks, result.mpp
    layers = [_slide_layer(Path(slide), mpp)] if slide is not None else []
    layers.append(
        (list(masks["mitosis_score"].levels), _options(masks["mitosis_score"], colormap="inferno", visible=False,
         contrast_limits=(0, 255), blending="additive"), "image")
    )  # fmt: skip
    layers.append((list(masks["classes"].levels), _options(masks["classes"], opacity=0.4), "labels"))
    for name in ("nuclei", "mitoses"):
        if name in masks:
            layers.append((list(masks[name].levels), _options(masks[name], visible=False), "labels"))
    layers += _outlines(result)
    return layers


def _options(mask: Mask, **more: Any) -> dict[str, Any]:
    # napari places pixels by their centres: the first one's is half a pixel from the slide's corner.
    shift = mask.mpp / 2
    return {
        "name": mask.name,
        "scale": mask.scale_um(),
        "translate": (shift, shift),
        "units": _UNIT,
        "multiscale": True,
        **more,
    }


def _outlines(result: Result) -> Iterator[Layer]:
    for name, table, colour in (
        ("mitosis outlines", result.mitoses, _GREEN),
        ("hot spot", result.hotspot, _ORANGE),
    ):
        rings = [np.array(p.exterior.coords)[:-1, ::-1] for p in table.geometry.explode().array]
        options: dict[str, Any] = {
            "name": name,
            "scale": (result.mpp, result.mpp),
            "units": _UNIT,
            "edge_color": colour,
            "face_color": "transparent",
            "edge_width": 2,
            "shape_type": "polygon",
        }
        if rings:
            yield rings, options, "shapes"


def _slide_layer(slide: Path, mpp: float) -> Layer:
    from wsi_minugan.interop.slide_pyramid import pyramid_of

    shift = mpp / 2
    options = {
        "name": slide.stem,
        "scale": (mpp, mpp),
        "translate": (shift, shift),
        "units": _UNIT,
        "multiscale": True,
        "rgb": True,
    }
    return pyramid_of(slide), options, "image"


def _slide_of(folder: Path) -> Path | None:
    """Return the slide of a result folder, where the run's table names it and it still is there."""
    import csv

    try:
        name = Result.open(folder).manifest.slide.slide_id
        with (folder.parent / "slides.csv").open(encoding="utf-8-sig", newline="") as f:
            paths = [Path(row["path"]) for row in csv.DictReader(f) if row.get("slide_id") == name]
    except (OSError, ValueError, KeyError, MinuganError):
        return None
    return next((p for p in paths if p.is_file()), None)
