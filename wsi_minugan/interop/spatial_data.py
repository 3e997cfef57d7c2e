"""Results as a SpatialData object (https://spatialdata.scverse.org)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_minugan.api.result import Result
from wsi_minugan.errors import InputError

if TYPE_CHECKING:
    import geopandas as gpd
    from spatialdata import SpatialData

    from wsi_minugan.api.masks import Mask

PIXELS, MICROMETRES = "global", "um"
"""Coordinate systems: pixels of the slide, which is spatialdata's default, and micrometres."""

_LABELS = ("classes", "mitoses", "nuclei")
_IMAGES = ("mitosis_score", "coverage")


def to_spatialdata(result: Result) -> SpatialData:
    """Return a slide's results as spatialdata's elements, each checked by its model.

    Parameters
    ----------
    result : Result
        The results of one slide.

    Returns
    -------
    SpatialData
        Labels "classes", "mitoses" and "nuclei"; images "mitosis_score" and "coverage"; shapes "mitosis_shapes",
        "nucleus_shapes" and "hotspot". All lie in the coordinate systems "global" (slide pixels) and "um". Pixels are
        read when they are computed, so keep `result` where it is temporary.

    Raises
    ------
    InputError
        If spatialdata is not installed.

    Examples
    --------
    >>> data = to_spatialdata(Result.open("OUT/a"))  # doctest: +SKIP
    >>> data.write("a.zarr")  # doctest: +SKIP
    """
    try:
        from spatialdata import SpatialData
    except ImportError as e:
        raise InputError("spatialdata is not installed. Do: pip install 'wsi-minugan[spatialdata]'") from e
    masks = result.masks
    return SpatialData(
        labels={n: _labels(masks[n], result.mpp) for n in _LABELS if n in masks},
        images={n: _image(masks[n], result.mpp) for n in _IMAGES},
        shapes=_shapes(result),
    )


def _labels(mask: Mask, mpp: float) -> Any:
    from spatialdata.models import Labels2DModel

    return Labels2DModel.parse(mask.data, dims=("y", "x"), transformations=_scaled(mask.slide_px, mpp))


def _image(mask: Mask, mpp: float) -> Any:
    from spatialdata.models import Image2DModel

    return Image2DModel.parse(
        mask.data[None],
        dims=("c", "y", "x"),
        c_coords=[mask.name],
        transformations=_scaled(mask.slide_px, mpp),
    )


def _shapes(result: Result) -> dict[str, Any]:
    from spatialdata.models import ShapesModel

    tables: dict[str, gpd.GeoDataFrame] = {"mitosis_shapes": result.mitoses, "hotspot": result.hotspot}
    if "nuclei" in result.masks:
        tables["nucleus_shapes"] = result.nuclei
    # spatialdata refuses tables without rows.
    return {
        name: ShapesModel.parse(table.copy(), transformations=_scaled(1.0, result.mpp))
        for name, table in tables.items()
        if len(table)
    }


def _scaled(slide_px: float, mpp: float) -> dict[str, Any]:
    """Return what brings an element whose pixel is `slide_px` slide pixels wide into both coordinate systems."""
    from spatialdata.transformations import Scale

    return {
        PIXELS: Scale([slide_px, slide_px], axes=("x", "y")),
        MICROMETRES: Scale([slide_px * mpp, slide_px * mpp], axes=("x", "y")),
    }
