"""Reading a GeoJSON back, ours or one corrected in QuPath."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson.classes import PEAK, is_mitosis, label_of

MAX_READ_BYTES = 2 * 2**30
MAX_COORDINATE_PX = 1e8
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
