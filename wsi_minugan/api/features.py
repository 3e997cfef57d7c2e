"""Reading mitoses.geojson back as shapes and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.outputs.geojson import Feature, FeatureCollection


@dataclass(frozen=True)
class Features:
    """The objects of one class.

    Attributes
    ----------
    ids : tuple of str
        UUIDs.
    shapes : ndarray of shapely geometries, shape (n,)
        Polygons in slide pixels.
    measurements : dict of str to ndarray, each of shape (n,)
        Numbers by name; not a number where an object lacks one.
    """

    ids: tuple[str, ...]
    shapes: NDArray[np.object_]
    measurements: dict[str, NDArray[np.float64]]


def read_features(path: Path, label: str, origin_px: tuple[int, int]) -> Features:
    """Return the objects of a class.

    Parameters
    ----------
    path : Path
        mitoses.geojson.
    label : str
        Name of the class.
    origin_px : tuple of int
        x, y of the slide pixel that the file's coordinates count from.

    Returns
    -------
    Features
        Ids, shapes in level-0 pixels of the slide, and measurements; NaN where an object lacks
        one.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or is not as a run writes it.
    """
    content = FeatureCollection.model_validate_json(path.read_bytes())
    found = [f for f in content.features if f.properties.classification.name == label]
    shapes = np.array([_shape(f) for f in found], object)
    if origin_px != (0, 0) and len(shapes):
        shapes = shapely.transform(shapes, lambda xy: xy + np.array(origin_px))
    names = sorted({name for f in found for name in f.properties.measurements})
    numbers = {n: np.array([f.properties.measurements.get(n, np.nan) for f in found]) for n in names}
    return Features(tuple(str(f.id) for f in found), shapes, numbers)


def _shape(feature: Feature) -> Any:
    parts = feature.geometry.coordinates
    if feature.geometry.type == "Polygon":
        return shapely.Polygon(parts[0], parts[1:])
    return shapely.MultiPolygon([(p[0], p[1:]) for p in parts])
