"""Objects of a GeoJSON with their ids, for reviews: ours, or corrected in QuPath; and areas that were drawn there."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import shape

from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson import (
    COLOURS,
    MAX_COORDINATE_PX,
    UNREADABLE,
    WINDOWS,
    Window,
    feature_text,
    features_of,
    is_mitosis,
    label_of,
    object_id,
)

NOT_MITOSIS = "Not mitosis"
"""Class of what a reviewer rejected; `count` leaves it out, as QuPath's user expects."""

_LOOK_ALIKES = ("not mitosis", "non-mitosis", "non mitosis", "nonmitosis", "hard negative", "imposter")


@dataclass(frozen=True)
class Marked:
    """One object of a GeoJSON.

    Attributes
    ----------
    id : str
        UUID in its usual form; empty where the file gives none.
    label : str
        Name of its class; empty where it has none.
    shape : shapely geometry
        In level-0 px: a polygon, a multipolygon or a point.
    metadata : mapping of str to str
        QuPath's metadata.
    measurements : mapping of str to float
        QuPath's measurements.
    """

    id: str
    label: str
    shape: shapely.Geometry
    metadata: Mapping[str, str] = field(default_factory=dict)
    measurements: Mapping[str, float] = field(default_factory=dict)

    @property
    def centre_px(self) -> tuple[float, float]:
        """Centroid, x and y in level-0 px.

        Returns
        -------
        tuple of float
            Of the shape.
        """
        centroid = self.shape.centroid
        return float(centroid.x), float(centroid.y)

    @property
    def counts(self) -> bool:
        """Whether it counts as a mitosis: by its class, or because nothing speaks against it.

        Returns
        -------
        bool
            True for one without a class.
        """
        return not self.label or is_mitosis(self.label)

    @property
    def look_alike(self) -> bool:
        """Whether its class says that it only looks like a mitosis.

        Returns
        -------
        bool
            Without regard to case.
        """
        lowered = self.label.casefold()
        return lowered.startswith(_LOOK_ALIKES) or ("like" in lowered and "mito" in lowered)


def read_objects(path: Path, origin_px: tuple[int, int] = (0, 0)) -> list[Marked]:
    """Read the objects of a GeoJSON; see `geojson.read_marks` for the files it takes.

    Parameters
    ----------
    path : Path
        The file.
    origin_px : tuple of int
        What the coordinates count from where the file does not say it.

    Returns
    -------
    list of Marked
        In the file's order, in level-0 px; the points of a multipoint are objects of their own.

    Raises
    ------
    InputError
        If the file cannot be read, or is not such a GeoJSON.
    """
    features, origin = features_of(path, origin_px)
    found: list[Marked] = []
    for k, feature in enumerate(features):
        found += _objects_of(path, k, feature, (float(origin[0]), float(origin[1])))
    return found


def _objects_of(path: Path, index: int, feature: Any, origin_px: tuple[float, float]) -> list[Marked]:
    try:
        figure = shape(feature["geometry"])
        parts = list(shapely.get_parts(figure)) if figure.geom_type == "MultiPoint" else [figure]
        parts = [shapely.transform(p, lambda xy: xy + origin_px) for p in parts]
    except UNREADABLE as e:
        raise InputError(
            f"{path}: feature {index + 1} has no geometry that can be read ({str(e).strip()}). Export it again."
        ) from e
    # A polygon that crosses itself still has a place; only what has none is refused.
    if not all(abs(v) < MAX_COORDINATE_PX for p in parts for v in (p.bounds or (float("nan"),))):
        raise InputError(f"{path}: feature {index + 1} lies outside of any slide. Export it again.")
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    own = _uuid(feature.get("id")) if len(parts) == 1 else ""
    words, numbers = _strings(properties.get("metadata")), _numbers(properties.get("measurements"))
    return [Marked(own, label_of(feature), p, words, numbers) for p in parts]


def _uuid(value: Any) -> str:
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        return ""


def _strings(value: Any) -> dict[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


_LARGEST_NUMBER = 3e38


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    # QuPath keeps them as float32. What is beyond that, or no number, could not be written again.
    return {
        k: float(v)
        for k, v in value.items()
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST_NUMBER
    }


_COLOURS = COLOURS | {NOT_MITOSIS: (213, 94, 0)}


def collection_text(
    objects: Iterable[Marked], origin_px: tuple[int, int], windows: Sequence[Window] = (), digest: str = ""
) -> str:
    """Return a FeatureCollection that QuPath reads.

    Parameters
    ----------
    objects : iterable of Marked
        What to write, with classes `MITOSIS` or `NOT_MITOSIS`; ids must differ.
    origin_px : tuple of int
        x, y of the level-0 pixel that the file's coordinates count from.
    windows : sequence of Window
        The hot spot and the fields, written first, as locked annotations.
    digest : str
        The slide's fingerprint, for the windows' ids.

    Returns
    -------
    str
        GeoJSON, a feature on each line.
    """
    lines = []
    for window in windows:
        properties = _properties(window.label, "annotation") | {"isLocked": True}
        properties |= {"name": window.name} if window.name else {}
        own = object_id(digest, window.key)
        lines.append(feature_text(own, from_origin(window.shape, origin_px), properties))
    for found in objects:
        properties = _properties(found.label, "detection")
        properties |= {"measurements": dict(found.measurements)} if found.measurements else {}
        properties |= {"metadata": dict(found.metadata)} if found.metadata else {}
        lines.append(feature_text(found.id, from_origin(found.shape, origin_px), properties))
    return collection_of(lines, origin_px)


def collection_of(lines: Iterable[str], origin_px: tuple[int, int]) -> str:
    """Return features as a FeatureCollection.

    Parameters
    ----------
    lines : iterable of str
        The features, each as JSON.
    origin_px : tuple of int
        x, y of the level-0 pixel that their coordinates count from.

    Returns
    -------
    str
        GeoJSON, a feature on each line.
    """
    origin = f'"origin_px":[{origin_px[0]},{origin_px[1]}],' if any(origin_px) else ""
    return f'{{"type":"FeatureCollection",{origin}"features":[\n' + ",\n".join(lines) + "\n]}\n"


def _properties(label: str, kind: str) -> dict[str, Any]:
    return {
        "objectType": kind,
        "type": label,
        "classification": {"name": label, "color": list(_COLOURS[label])},
    }


def from_origin(outline: shapely.Geometry, origin_px: tuple[int, int]) -> shapely.Geometry:
    """Return a shape in level-0 px as a file has it whose coordinates count from another pixel.

    Parameters
    ----------
    outline : shapely geometry
        In level-0 px.
    origin_px : tuple of int
        x, y of that pixel.

    Returns
    -------
    shapely geometry
        The same one for an origin of 0, 0.
    """
    return shapely.transform(outline, lambda xy: xy - origin_px) if any(origin_px) else outline


def read_regions(path: Path, origin_px: tuple[int, int] = (0, 0)) -> dict[str, shapely.Geometry]:
    """Read the areas drawn in a GeoJSON, by name; those of one name are joined.

    Parameters
    ----------
    path : Path
        As QuPath exports annotations. Mitoses, hot spots, fields and detections in it are passed over.
    origin_px : tuple of int
        What the coordinates count from where the file does not say it.

    Returns
    -------
    dict of str to shapely geometry
        Valid polygons in level-0 px. A region without a name bears that of its class, or "Region".

    Raises
    ------
    InputError
        If the file cannot be read, or holds no area.
    """
    features, origin = features_of(path, origin_px)
    found: dict[str, list[shapely.Geometry]] = {}
    for k, feature in enumerate(features):
        label = label_of(feature)
        properties = feature.get("properties") if isinstance(feature, dict) else None
        properties = properties if isinstance(properties, dict) else {}
        if (
            is_mitosis(label)
            or label in WINDOWS
            or properties.get("objectType") in {"detection", "cell", "tile"}
        ):
            continue
        area = _area(path, k, feature)
        if area is not None:
            name = str(properties.get("name") or label or "Region")[:200]
            found.setdefault(name, []).append(shapely.transform(area, lambda xy: xy + origin))
    if not found:
        raise InputError(
            f"{path} holds no area. Draw a closed annotation in QuPath, and export it as GeoJSON."
        )
    return {name: shapely.union_all(areas) for name, areas in found.items()}


def _area(path: Path, index: int, feature: Any) -> shapely.Geometry | None:
    """Return a feature's polygons, valid; None where it is a point or a line."""
    try:
        figure = shape(feature.get("geometry") if "geometry" in feature else feature)
        if figure.geom_type not in {"Polygon", "MultiPolygon"}:
            return None
        area = shapely.make_valid(figure, method="structure", keep_collapsed=False)
    except UNREADABLE as e:
        raise InputError(
            f"{path}: feature {index + 1} has no geometry that can be read ({str(e).strip()}). Export it again."
        ) from e
    if not all(abs(v) < MAX_COORDINATE_PX for v in area.bounds):
        raise InputError(f"{path}: feature {index + 1} lies outside of any slide. Export it again.")
    return None if area.is_empty else area
