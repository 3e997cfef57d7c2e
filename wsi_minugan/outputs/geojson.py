"""Mitoses as a QuPath FeatureCollection, and reading one back, ours or corrected in QuPath.

The rules are QuPath's (design.md, import rules): no nulls, UUIDs, both keys of a classification, valid rings on a 0.01 px grid.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import uuid
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from shapely.geometry import shape

from wsi_minugan.errors import InputError
from wsi_minugan.geometry import GRID_PX
from wsi_minugan.outputs.atomic import atomic_path

MITOSIS, HOTSPOT, FIELD = "Mitosis", "Hot spot", "High-power field"
WINDOWS = (HOTSPOT, FIELD)
"""Classes of what mitoses are counted in, and that is none."""
PEAK = "Peak score"
COLOURS = {MITOSIS: (0, 200, 60), HOTSPOT: (255, 170, 0), FIELD: (0, 150, 255)}
_NAMESPACE = uuid.UUID("6f2c1f0e-6a0e-5a57-9d4c-2f6f3f1f9a10")
MAX_READ_BYTES = 2 * 2**30
MAX_COORDINATE_PX = 1e8


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
    isLocked: bool | None = Field(None, description="True of the hot spot and the fields.")  # noqa: N815
    type: str | None = Field(None, description="The class again, by which TIAToolbox colours.")
    classification: Classification
    measurements: dict[str, float] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(
        default_factory=dict, description="In reviews: who decided what, and when."
    )


class Geometry(_Strict):
    """A polygon or multipolygon in level-0 pixels."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class Feature(_Strict):
    """One mitosis, the hot spot, or a field."""

    type: Literal["Feature"] = "Feature"
    id: uuid.UUID
    geometry: Geometry
    properties: Properties


class FeatureCollection(_Strict):
    """Content of mitoses.geojson; `origin_px` is a foreign member (RFC 7946, 6.1), which other programs pass over."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    origin_px: tuple[int, int] = Field(
        (0, 0),
        description="x, y of the level-0 pixel that the coordinates count from; (0, 0) where not there.",
    )
    features: list[Feature]


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


def as_written(polygons: Iterable[shapely.Geometry]) -> NDArray[np.object_]:
    """Return polygons as a file holds them; an object's area and centroid are those of its polygon as written.

    So QuPath's area, ours and that of a count of the file are one number, and a recount finds the same places to the last bit.

    Parameters
    ----------
    polygons : iterable of shapely geometry
        Polygons or multipolygons, in the file's px.

    Returns
    -------
    ndarray of object, shape (n,)
        The same on the grid of 0.01 px, exterior rings counter-clockwise.
    """
    snapped = [shapely.orient_polygons(single(p)) for p in polygons]
    # Without their grid: GEOS would round what is computed of them, such as centroids, to it.
    return np.asarray(shapely.set_precision(np.array(snapped, object), 0.0), object)


def centroids_of(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the centroids of polygons as `read_marks` finds them; shape ``(n, 2)``.

    Parameters
    ----------
    shapes : ndarray of object, shape (n,)
        Polygons of `as_written`.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y in their px.
    """
    xy: NDArray[np.float64] = shapely.get_coordinates(shapely.centroid(shapes)).reshape(-1, 2)
    return xy


def single(polygon: shapely.Geometry) -> shapely.Geometry:
    """Return a valid polygon on QuPath's grid; a multipolygon of one part becomes a polygon.

    Parameters
    ----------
    polygon : shapely geometry
        A polygon or multipolygon, in px.

    Returns
    -------
    shapely Polygon or MultiPolygon
        On the grid of 0.01 px.
    """
    snapped = shapely.set_precision(polygon, GRID_PX)
    parts = [p for p in shapely.get_parts(snapped) if p.geom_type == "Polygon" and p.area > 0]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def rectangle(x_px: float, y_px: float, width_px: float, height_px: float) -> shapely.Geometry:
    """Return a rectangle about its centre.

    Parameters
    ----------
    x_px, y_px : float
        Its centre.
    width_px, height_px : float
        Its size.

    Returns
    -------
    shapely Polygon
        In the same px.
    """
    return shapely.box(x_px - width_px / 2, y_px - height_px / 2, x_px + width_px / 2, y_px + height_px / 2)


def circle(x_px: float, y_px: float, radius_px: float) -> shapely.Geometry:
    """Return a circle as a polygon of 256 corners.

    Parameters
    ----------
    x_px, y_px : float
        Its centre.
    radius_px : float
        Its radius.

    Returns
    -------
    shapely Polygon
        In the same px.
    """
    return shapely.buffer(shapely.Point(x_px, y_px), radius_px, quad_segs=64)


@dataclass(frozen=True)
class Marks:
    """What a GeoJSON holds, ours or one corrected in QuPath.

    Attributes
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, in level-0 px; in the file's own where it does not say what it counts from.
    left_out : mapping of str to int
        How many features of other classes there are, by class.
    unclassed : int
        How many features without a class were counted.
    by_class : mapping of str to int
        How many mitoses were counted, by class; those without one under "".
    scores : ndarray of float, shape (n,)
        Their peak scores, 0 to 1; NaN where the file does not say them.
    """

    points_px: NDArray[np.float64]
    left_out: Mapping[str, int]
    unclassed: int
    by_class: Mapping[str, int]
    scores: NDArray[np.float64]


def read_marks(path: Path, origin_px: tuple[int, int] = (0, 0)) -> Marks:
    """Read the centroids of the mitoses in a GeoJSON, ours or any other.

    Parameters
    ----------
    path : Path
        A FeatureCollection, a feature, or an array of features; as it is, with gzip, or alone in a zip. Points, multipoints (each
        point counts) and polygons; where features have classes, those whose name starts with "mitosis", "mitoses" or "mitotic
        figure" count (without regard to case, and but for look-alikes, negatives and doubtful ones), and those without a class.
    origin_px : tuple of int
        What the coordinates count from where the file does not say it: QuPath leaves that out when it exports.

    Returns
    -------
    Marks
        Centroids, scores and classes, in level-0 px of the slide.

    Raises
    ------
    InputError
        If the file cannot be read, or is not such a GeoJSON.
    """
    features, origin = features_of(path, origin_px)
    points: list[tuple[float, float]] = []
    scores: list[float] = []
    left_out: Counter[str] = Counter()
    by_class: Counter[str] = Counter()
    unclassed = 0
    for k, feature in enumerate(features):
        label = label_of(feature)
        if label and not is_mitosis(label):
            left_out[label] += 1
            continue
        unclassed += not label
        centres = _centres(path, k, feature.get("geometry") if isinstance(feature, dict) else None)
        by_class[label] += len(centres)
        points += centres
        scores += [_peak(feature)] * len(centres)
    at = np.array(points, np.float64).reshape(-1, 2) + origin
    return Marks(at, left_out, unclassed, by_class, np.array(scores, np.float64))


def _peak(feature: Any) -> float:
    """Return a feature's peak score, or NaN."""
    properties = feature.get("properties")
    numbers = properties.get("measurements") if isinstance(properties, dict) else None
    value = numbers.get(PEAK) if isinstance(numbers, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else math.nan


def features_of(path: Path, origin_px: tuple[int, int] = (0, 0)) -> tuple[list[Any], NDArray[np.float64]]:
    """Return the features of a file as they stand there, and the level-0 pixel that their coordinates count from; see `read_marks`.

    Parameters
    ----------
    path : Path
        As for `read_marks`.
    origin_px : tuple of int
        x, y of the pixel that coordinates count from, where the file does not say so itself.

    Returns
    -------
    features : list
        As they stand in the file; nothing in them was checked.
    origin_px : ndarray of float, shape (2,)
        x, y.

    Raises
    ------
    InputError
        If the file cannot be read, or is no GeoJSON.
    """
    content = _load(path)
    return _listed(path, content), _origin_of(path, content, origin_px)


def _listed(path: Path, content: Any) -> list[Any]:
    """Return the features of a file; QuPath also exports them as a bare array."""
    if isinstance(content, list):
        return content
    features = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise InputError(
            f"{path} is not a GeoJSON FeatureCollection. Export the objects from QuPath as GeoJSON."
        )
    return features


def _origin_of(path: Path, content: Any, otherwise: tuple[int, int]) -> NDArray[np.float64]:
    """Return x, y of the pixel that a file's coordinates count from."""
    said = content.get("origin_px", otherwise) if isinstance(content, dict) else otherwise
    try:
        origin = np.array(said, np.float64)
    except (TypeError, ValueError, OverflowError):
        origin = np.full(2, np.nan)
    if origin.shape != (2,) or not (np.abs(origin) < MAX_COORDINATE_PX).all():
        raise InputError(
            f"{path}: origin_px must be two numbers, x and y. Take the line as the run wrote it."
        )
    return origin


def _load(path: Path) -> Any:
    """Return the object or array that a file holds, packed or not: what it is, its first bytes say better than its name."""
    try:
        with path.open("rb") as f:
            packed = f.read(4)
            f.seek(0)
            data = _unpacked(path, f, packed).read(MAX_READ_BYTES + 1)
        if len(data) > MAX_READ_BYTES:
            raise InputError(f"{path} is larger than 2 GB; that is no list of mitoses.")
        content = json.loads(data)
    except FileNotFoundError as e:
        raise InputError(f"There is no file {path}. Check the name.") from e
    except (
        *(OSError, EOFError, zlib.error, ValueError, RecursionError),
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
    ) as e:
        raise InputError(f"{path} cannot be read as GeoJSON: {e}. Export it again.") from e
    if not isinstance(content, dict | list):
        raise InputError(f"{path} is not a GeoJSON object. Export it again.")
    return content


def _unpacked(path: Path, file: IO[bytes], first: bytes) -> IO[bytes] | gzip.GzipFile:
    """Return what a file holds: with gzip, or alone in a zip, as QuPath exports it; else the file itself."""
    if first.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if first != b"PK\x03\x04":
        return file
    archive = zipfile.ZipFile(file)
    names = [n for n in archive.namelist() if n.lower().endswith((".geojson", ".json")) and not _hidden(n)]
    if len(names) != 1:
        raise InputError(
            f"{path} is a zip that holds {len(names)} GeoJSON files. Unpack it, and name the one to count."
        )
    return archive.open(names[0])


def _hidden(name: str) -> bool:
    """Return whether a file of a zip is what macOS adds to it."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def label_of(feature: Any) -> str:
    """Return the name of a feature's class, in the ways QuPath's versions write it; empty where it has none.

    Parameters
    ----------
    feature : Any
        A feature of any file.

    Returns
    -------
    str
        The class's name.
    """
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return ""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = classification.get("name") or (": ".join(map(str, names)) if names else "")
    if not classification:  # ours may have lost its class
        name = str(properties.get("name") or "")
        classification = next((label for label in WINDOWS if name.startswith(label)), "")
    return str(classification or "")


_SAYS_NO = re.compile(
    r"like|negativ|impost[eo]r|mimic|art[ei]fact|apopto|pykno|\bnon?\b|\bnot\b|false|reject|exclude|ignore|doubt|uncertain|unsure|unclear|"
    r"maybe|possible|suspicious|suspect|candidate|questionable|\?"
)
"""Words of a class that begins with a mitosis and does not mean one, or not for sure."""


def is_mitosis(label: str) -> bool:
    """Return whether a class of QuPath's means mitoses: look-alikes, negatives and doubtful ones do not count.

    Parameters
    ----------
    label : str
        Name of the class.

    Returns
    -------
    bool
        Without regard to case.
    """
    lowered = label.casefold().replace("_", " ").strip()
    return lowered.startswith(("mitosis", "mitoses", "mitotic figure")) and not _SAYS_NO.search(lowered)


UNREADABLE = (
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    shapely.errors.ShapelyError,
)
"""What Shapely raises of a geometry that is none: of whole numbers beyond all floats, an OverflowError."""


def _centres(path: Path, index: int, geometry: Any) -> list[tuple[float, float]]:
    try:
        figure = shape(geometry)
        parts = shapely.get_parts(figure) if figure.geom_type == "MultiPoint" else [figure]
        centres = [(float(p.centroid.x), float(p.centroid.y)) for p in parts]
    except UNREADABLE as e:
        raise InputError(
            f"{path}: feature {index + 1} has no geometry that can be read ({str(e).strip()}). Export it again."
        ) from e
    if not all(abs(v) < MAX_COORDINATE_PX for xy in centres for v in xy):
        raise InputError(f"{path}: feature {index + 1} lies outside of any slide. Export it again.")
    return centres
