"""Mitoses as a QuPath FeatureCollection, and reading one back, ours or corrected in QuPath."""

from wsi_minugan.outputs.geojson.classes import (
    COLOURS,
    FIELD,
    HOTSPOT,
    MITOSIS,
    PEAK,
    WINDOWS,
    is_mitosis,
    label_of,
)
from wsi_minugan.outputs.geojson.model import Feature, FeatureCollection
from wsi_minugan.outputs.geojson.reading import (
    MAX_COORDINATE_PX,
    MAX_READ_BYTES,
    UNREADABLE,
    Marks,
    features_of,
    read_marks,
)
from wsi_minugan.outputs.geojson.shapes import as_written, centroids_of, circle, rectangle, single
from wsi_minugan.outputs.geojson.writing import Mitoses, Window, feature_text, object_id, write_geojson

__all__ = [
    "COLOURS", "FIELD", "HOTSPOT", "MAX_COORDINATE_PX", "MAX_READ_BYTES", "MITOSIS", "PEAK", "UNREADABLE", "WINDOWS", "Feature",
    "FeatureCollection", "Marks", "Mitoses", "Window", "as_written", "centroids_of", "circle", "feature_text", "features_of",
    "is_mitosis", "label_of", "object_id", "read_marks", "rectangle", "single", "write_geojson",
]  # fmt: skip
