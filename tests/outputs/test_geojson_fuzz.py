"""Whatever a GeoJSON holds, reading it ends in marks or in a sentence: no traceback, no hang, no place that is no number."""

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzzing import FUZZ_S, examples, for_a_while
from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson import read_marks
from wsi_minugan.outputs.objects import read_objects, read_regions

pytestmark = pytest.mark.timeout(max(900, 2 * FUZZ_S))
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}
WHOLE = {
    "type": "FeatureCollection",
    "origin_px": [0, 0],
    "features": [
        {
            "type": "Feature",
            "id": "6f2c1f0e-6a0e-5a57-9d4c-2f6f3f1f9a10",
            "geometry": SQUARE,
            "properties": {
                "objectType": "detection",
                "classification": {"name": "Mitosis", "color": [1, 2, 3]},
                "measurements": {"Peak score": 0.9},
                "metadata": {"Decision": "accepted"},
            },
        },
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}},
    ],
}

numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([1e300, -1e9, 2**63, 10**400, 0.0]))
words = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "Feature",
            "FeatureCollection",
            "Point",
            "MultiPoint",
            "Polygon",
            "MultiPolygon",
            "LineString",
            "GeometryCollection",
            "Mitosis",
        ]
    ),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, words)
keys = st.one_of(
    st.sampled_from(["type", "coordinates", "geometries", "name", "names", "features", "geometry"]),
    st.text(max_size=4),
)
values = st.recursive(
    leaves, lambda v: st.one_of(st.lists(v, max_size=4), st.dictionaries(keys, v, max_size=3)), max_leaves=12
)


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to every part of a document."""
    found = [at]
    if isinstance(node, dict):
        found += [p for k, v in node.items() for p in places(v, (*at, k))]
    if isinstance(node, list):
        found += [p for k, v in enumerate(node) for p in places(v, (*at, k))]
    return found


def with_change(node: Any, way: tuple[Any, ...], value: Any) -> Any:
    if not way:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[way[0]] = with_change(copy[way[0]], way[1:], value)
    return copy


def survives(data: bytes) -> None:
    """Read a file in each of the ways that there are: as mitoses, as objects of a review, as areas."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.geojson"
        path.write_bytes(data)
        with suppress_sentence():
            read_regions(path)
        with suppress_sentence():
            for found in read_objects(path):
                json.dumps(found.measurements, allow_nan=False)
        with suppress_sentence():
            marks = read_marks(path)
            assert np.isfinite(marks.points_px).all()
            assert sum(marks.by_class.values()) == len(marks.points_px)


@contextmanager
def suppress_sentence() -> Iterator[None]:
    try:
        yield
    except InputError as e:
        assert "m.geojson" in str(e)


@for_a_while
@given(st.sampled_from(places(WHOLE)), values)
@example(("features", 0, "geometry", "coordinates", 0, 0, 0), 10**400)
@example(("features", 1, "geometry", "coordinates", 0), 10**400)
@example(("features", 0, "properties", "measurements"), {"Peak score": 10**400})
@examples(150)
def test_any_value_at_any_place_ends_well(way: tuple[Any, ...], value: Any) -> None:
    survives(json.dumps(with_change(WHOLE, way, value)).encode())


@for_a_while
@given(values)
@examples(100)
def test_any_geometry_ends_well(geometry: Any) -> None:
    survives(json.dumps([{"type": "Feature", "geometry": geometry, "properties": {}}]).encode())


def packed(kind: str) -> bytes:
    text = json.dumps(WHOLE).encode()
    if kind == "gzip":
        return gzip.compress(text, mtime=0)
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("m.geojson", text)
        return file.getvalue()
    return text


@pytest.mark.parametrize("kind", ["plain", "gzip", "zip"])
@for_a_while
@given(data=st.data())
@examples(150)
def test_bytes_that_were_changed_end_well(kind: str, data: st.DataObject) -> None:
    content = bytearray(packed(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(content[: data.draw(st.integers(0, len(content)))]))
