"""Mitoses as a QuPath FeatureCollection, and reading one back, ours or corrected in QuPath.

The rules are QuPath's (design.md, import rules): no nulls, UUIDs, both keys of a classification, valid rings on a 0.01 px grid.
"""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from shapely.geometry import shape

from wsi_minugan.errors import InputError
from wsi_minugan.outputs.atomic import atomic_path

MITOSIS, HOTSPOT = "Mitosis", "Hot spot"
_COLOURS = {MITOSIS: (0, 200, 60), HOTSPOT: (255, 170, 0)}
_NAMESPACE = uuid.UUID("6f2c1f0e-6a0e-5a57-9d4c-2f6f3f1f9a10")
_GRID_PX = 0.01
MAX_READ_BYTES = 2 * 2**30


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Classification(_Strict):
    """QuPath's class of an object; both keys are needed."""

    name: str = Field(min_length=1, pattern=r"^[^\n]*\S[^\n]*$")
    color: tuple[int, int, int]


class Properties(_Strict):
    """QuPath's properties of an object."""

    objectType: Literal["annotation", "detection"]  # noqa: N815 - QuPath's name
    name: str | None = None
    classification: Classification
    measurements: dict[str, float] = Field(default_factory=dict)


class Geometry(_Strict):
    """A polygon or multipolygon in level-0 pixels."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class Feature(_Strict):
    """One mitosis, or the hot spot."""

    type: Literal["Feature"] = "Feature"
    id: uuid.UUID
    geometry: Geometry
    properties: Properties


class FeatureCollection(_Strict):
    """Content of mitoses.geojson."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Feature]


@dataclass(frozen=True)
class Mitoses:
    """What is written.

    Attributes
    ----------
    shapes : ndarray of shapely geometries, shape (n,)
        Valid polygons in level-0 px.
    measurements : mapping of str to ndarray, each of shape (n,)
        Numbers per mitosis.
    digest : str
        Digest of the slide's work, from which the ids are made.
    """

    shapes: NDArray[np.object_]
    measurements: Mapping[str, NDArray[np.float64]]
    digest: str


def write_geojson(path: Path, mitoses: Mitoses, hotspot: shapely.Geometry | None, name: str = "") -> None:
    """Write mitoses as detections and the hot spot as an annotation.

    Parameters
    ----------
    path : Path
        File to write.
    mitoses : Mitoses
        Polygons and their numbers.
    hotspot : shapely Polygon, optional
        The hot spot in level-0 px.
    name : str
        Words for the hot spot.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as f:
        f.write('{"type":"FeatureCollection","features":[')
        for k, feature in enumerate(_features(mitoses, hotspot, name)):
            f.write((",\n" if k else "\n") + feature)
        f.write("\n]}\n")


def _features(mitoses: Mitoses, hotspot: shapely.Geometry | None, name: str) -> Iterator[str]:
    if hotspot is not None:
        yield _feature(hotspot, mitoses.digest, "hotspot", HOTSPOT, "annotation", {}, name)
    for k, polygon in enumerate(mitoses.shapes):
        numbers = {m: round(float(v[k]), 4) for m, v in mitoses.measurements.items()}
        yield _feature(polygon, mitoses.digest, f"mitosis {k + 1}", MITOSIS, "detection", numbers)


def _feature(
    polygon: shapely.Geometry,
    digest: str,
    key: str,
    label: str,
    kind: str,
    measurements: dict[str, float],
    name: str = "",
) -> str:
    geometry = json.loads(shapely.to_geojson(shapely.orient_polygons(single(polygon))))
    properties = {"objectType": kind, "classification": {"name": label, "color": list(_COLOURS[label])}}
    if name:
        properties["name"] = name
    if measurements:
        properties["measurements"] = measurements
    feature = {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, f"{digest} {key}")),
        "geometry": {k: geometry[k] for k in ("type", "coordinates")},
        "properties": properties,
    }
    return json.dumps(feature, separators=(",", ":"), allow_nan=False)


def single(polygon: shapely.Geometry) -> shapely.Geometry:
    """Return a valid polygon on QuPath's grid; a multipolygon of one part becomes a polygon."""
    snapped = shapely.set_precision(polygon, _GRID_PX)
    parts = [p for p in shapely.get_parts(snapped) if p.geom_type == "Polygon" and p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def circle(x_px: float, y_px: float, radius_px: float) -> shapely.Geometry:
    """Return a circle as a polygon of 256 corners."""
    return shapely.buffer(shapely.Point(x_px, y_px), radius_px, quad_segs=64)


def read_points(path: Path) -> NDArray[np.float64]:
    """Read the centroids of the mitoses in a GeoJSON, ours or any other.

    Parameters
    ----------
    path : Path
        ``.geojson`` or ``.json``, also with ``.gz``. Points, multipoints (each point counts) and polygons; where features
        have classes, those whose name starts with "mitosis" or "mitotic figure" count (without regard to case), and
        those without a class.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y in the file's pixels.

    Raises
    ------
    InputError
        If the file cannot be read, or is not such a GeoJSON.
    """
    content = _load(path)
    features = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise InputError(
            f"{path} is not a GeoJSON FeatureCollection. Export the objects from QuPath as GeoJSON."
        )
    points: list[tuple[float, float]] = []
    for k, feature in enumerate(features):
        if isinstance(feature, dict) and _counts(feature):
            points += _centres(path, k, feature.get("geometry"))
    return np.array(points, np.float64).reshape(-1, 2)


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as f:
                data = f.read(MAX_READ_BYTES + 1)
        else:
            with path.open("rb") as f:
                data = f.read(MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            raise InputError(f"{path} is larger than 2 GB; that is no list of mitoses.")
        content = json.loads(data)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as e:
        raise InputError(f"{path} cannot be read as GeoJSON: {e}. Export it again.") from e
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a GeoJSON object. Export it again.")
    return content


def _counts(feature: Mapping[str, Any]) -> bool:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") if isinstance(properties, dict) else None
    name = classification.get("name", "") if isinstance(classification, dict) else (classification or "")
    lowered = str(name).casefold()
    return not lowered or lowered.startswith(("mitosis", "mitotic figure"))


def _centres(path: Path, index: int, geometry: Any) -> list[tuple[float, float]]:
    try:
        figure = shape(geometry)
        parts = shapely.get_parts(figure) if figure.geom_type == "MultiPoint" else [figure]
        centres = [p.centroid for p in parts]
        return [(float(c.x), float(c.y)) for c in centres]
    except (AttributeError, TypeError, ValueError, KeyError, IndexError, shapely.errors.ShapelyError) as e:
        raise InputError(
            f"{path}: feature {index + 1} has no geometry that can be read ({e}). Export it again."
        ) from e
