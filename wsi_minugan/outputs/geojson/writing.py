"""Mitoses, the hot spot and the fields as a QuPath FeatureCollection.

The rules are QuPath's (design.md, import rules): no nulls, UUIDs, both keys of a classification, valid rings on a 0.01 px grid.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.outputs.atomic import atomic_path
from wsi_minugan.outputs.geojson.classes import COLOURS, MITOSIS
from wsi_minugan.outputs.geojson.shapes import as_written

_NAMESPACE = uuid.UUID("6f2c1f0e-6a0e-5a57-9d4c-2f6f3f1f9a10")


@dataclass(frozen=True)
class Mitoses:
    """What is written.

    Attributes
    ----------
    shapes : ndarray of shapely geometries, shape (n,)
        Polygons in level-0 px, `as_written`.
    measurements : mapping of str to ndarray, each of shape (n,)
        Numbers per mitosis.
    first_px : ndarray of int, shape (n, 2)
        x, y of each one's first pixel (raster order, analysis px): no two objects share it, and no setting moves it.
    slide_digest : str
        The slide's fingerprint; with `first_px` it makes the ids.
    origin_px : tuple of int, optional
        x, y of the level-0 pixel that the file's coordinates count from; it is recorded in the file.
    """

    shapes: NDArray[np.object_]
    measurements: Mapping[str, NDArray[np.float64]]
    first_px: NDArray[np.int64]
    slide_digest: str
    origin_px: tuple[int, int] | None = None


@dataclass(frozen=True)
class Window:
    """What mitoses are counted in: the hot spot, or a high-power field.

    Attributes
    ----------
    label : str
        `HOTSPOT` or `FIELD`.
    key : str
        With the slide's fingerprint it makes the id.
    shape : shapely Polygon
        Its outline, level-0 px.
    name : str
        Its words.
    """

    label: str
    key: str
    shape: shapely.Geometry
    name: str = ""


def write_geojson(path: Path, mitoses: Mitoses, windows: Sequence[Window] = ()) -> None:
    """Write mitoses as detections, the hot spot and the fields as locked annotations.

    Parameters
    ----------
    path : Path
        File to write.
    mitoses : Mitoses
        Polygons and their numbers.
    windows : sequence of Window
        The hot spot and the fields; they come first.
    """
    mitoses, windows = _from_origin(mitoses, windows)
    with atomic_path(path, parents=False) as temporary, temporary.open("w", encoding="utf-8") as f:
        f.write('{"type":"FeatureCollection",')
        if mitoses.origin_px is not None:
            f.write(f'"origin_px":{json.dumps(mitoses.origin_px)},')
        f.write('"features":[')
        for k, feature in enumerate(_features(mitoses, windows)):
            f.write((",\n" if k else "\n") + feature)
        f.write("\n]}\n")


def _features(mitoses: Mitoses, windows: Sequence[Window]) -> Iterator[str]:
    for window in windows:
        (outline,) = as_written([window.shape])
        yield _feature(outline, mitoses.slide_digest, window.key, window.label, "annotation", {}, window.name)
    for k, polygon in enumerate(mitoses.shapes):
        numbers = {m: round(float(v[k]), 4) for m, v in mitoses.measurements.items()}
        key = "mitosis {} {}".format(*mitoses.first_px[k])
        yield _feature(polygon, mitoses.slide_digest, key, MITOSIS, "detection", numbers)


def _from_origin(mitoses: Mitoses, windows: Sequence[Window]) -> tuple[Mitoses, Sequence[Window]]:
    """Return what is in level-0 px in coordinates that count from the file's origin."""
    if mitoses.origin_px is None:
        return mitoses, windows
    origin, n = np.array(mitoses.origin_px), len(mitoses.shapes)
    # Coordinates lie on a grid of 0.01 px; the difference of two floats does so but for its last digits.
    moved = shapely.transform(
        np.array([*mitoses.shapes, *(w.shape for w in windows)], object), lambda xy: np.round(xy - origin, 2)
    )
    shifted = [replace(w, shape=s) for w, s in zip(windows, moved[n:], strict=True)]
    return replace(mitoses, shapes=moved[:n]), shifted


def _feature(
    polygon: shapely.Geometry,
    digest: str,
    key: str,
    label: str,
    kind: str,
    measurements: dict[str, float],
    name: str = "",
) -> str:
    colours = {"name": label, "color": list(COLOURS[label])}
    properties: dict[str, Any] = {"objectType": kind, "type": label, "classification": colours}
    if kind == "annotation":
        properties["isLocked"] = True
    if name:
        properties["name"] = name
    if measurements:
        properties["measurements"] = measurements
    return _line(object_id(digest, key), polygon, properties)


def object_id(digest: str, key: str) -> str:
    """Return the UUID of an object of a slide; the same key always gets the same one.

    Parameters
    ----------
    digest : str
        SHA-256 of what was analysed and how.
    key : str
        Names the object within the slide.

    Returns
    -------
    str
        A UUID of version 5 (RFC 9562).
    """
    return str(uuid.uuid5(_NAMESPACE, f"{digest} {key}"))


def feature_text(own_id: str, polygon: shapely.Geometry, properties: Mapping[str, Any]) -> str:
    """Return a feature as one line of strict JSON.

    Parameters
    ----------
    own_id : str
        Its UUID.
    polygon : shapely Polygon or MultiPolygon
        In the file's px.
    properties : mapping
        QuPath's properties.

    Returns
    -------
    str
        The line, without its end.
    """
    return _line(own_id, as_written([polygon])[0], properties)


def _line(own_id: str, polygon: shapely.Geometry, properties: Mapping[str, Any]) -> str:
    geometry = json.loads(shapely.to_geojson(polygon))
    feature = {
        "type": "Feature",
        "id": own_id,
        "geometry": {k: geometry[k] for k in ("type", "coordinates")},
        "properties": properties,
    }
    return json.dumps(feature, separators=(",", ":"), allow_nan=False)
