"""Reading mitoses back, as QuPath's versions and other programs write them."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson import FeatureCollection, Marks, Mitoses, read_marks, write_geojson

SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]}
POINT = {"type": "Point", "coordinates": [10, 20]}


def feature(classification: Any = None, geometry: Any = POINT, **properties: Any) -> dict[str, Any]:
    """Return a feature; a class given as a word is written as QuPath does."""
    if isinstance(classification, str):
        classification = {"name": classification, "color": [1, 2, 3]}
    if classification is not None:
        properties["classification"] = classification
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"} | properties}


def read(folder: Path, *features: Any, name: str = "m.geojson") -> Marks:
    text = json.dumps({"type": "FeatureCollection", "features": features})
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())
    return read_marks(path)


@pytest.mark.parametrize(
    "classification",
    [
        "Mitosis",
        "mitosis",
        "Mitosis: confirmed",
        "Mitotic figure",
        {"names": ["Mitosis", "sure"], "color": [1, 2, 3]},
        None,
        {"name": None},
    ],
)
def test_mitoses_and_what_has_no_class_count(tmp_path: Path, classification: Any) -> None:
    assert len(read(tmp_path, feature(classification)).points_px) == 1


@pytest.mark.parametrize(
    "classification",
    [
        "Tumor",
        "Hot spot",
        "Non-mitosis",
        "Mitosis-like",
        "Mitotic figure look-alike",
        "Ignore*",
        {"names": ["Tumor"], "color": [1, 2, 3]},
    ],
)
def test_other_classes_do_not_count_and_are_told(tmp_path: Path, classification: Any) -> None:
    marks = read(tmp_path, feature(classification), feature("Mitosis"))
    assert len(marks.points_px) == 1
    assert sum(marks.left_out.values()) == 1


def test_our_hot_spot_is_no_mitosis_even_without_its_class(tmp_path: Path) -> None:
    spot = feature(None, SQUARE, name="Hot spot: 3 mitoses in 2.00 mm2")
    assert len(read(tmp_path, spot, feature("Mitosis")).points_px) == 1


def test_points_multipoints_and_polygons_count_by_their_centres(tmp_path: Path) -> None:
    several = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    marks = read(tmp_path, feature("Mitosis", several), feature("Mitosis", SQUARE), feature(None))
    assert marks.points_px.tolist() == [[1, 2], [3, 4], [2, 2], [10, 20]]
    assert marks.unclassed == 1


@pytest.mark.parametrize("name", ["m.json", "m.geojson.gz", "m.GeoJSON.GZ"])
def test_files_may_be_packed(tmp_path: Path, name: str) -> None:
    assert len(read(tmp_path, feature("Mitosis"), name=name).points_px) == 1


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        [1, 2],
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Point", "coordinates": [float("nan"), 1]},
        {"type": "Point", "coordinates": [float("inf"), 1]},
        {"type": "Point", "coordinates": [1e300, 1]},
    ],
)
def test_a_feature_without_a_place_is_named(tmp_path: Path, geometry: Any) -> None:
    with pytest.raises(InputError, match="feature 2"):
        read(tmp_path, feature("Mitosis"), feature("Mitosis", geometry))


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "[" * 100_000, '{"type": "FeatureCollection"}', '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_no_geojson_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "marks.json").write_text(text)
    with pytest.raises(InputError, match="marks"):
        read_marks(tmp_path / "marks.json")


SPOT = shapely.box(1000, 2000, 1100, 2100)


def write(path: Path, origin: tuple[int, int] | None) -> Path:
    mitosis = np.array([shapely.box(1010, 2020, 1014, 2024)], object)
    first = np.array([[1010, 2020]])
    write_geojson(path, Mitoses(mitosis, {"Area um2": np.array([1.0])}, first, "d", origin), SPOT)
    return path


def test_with_an_offset_coordinates_count_from_the_slides_bounds_and_the_file_says_so(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path / "m.geojson", (1000, 2000)).read_text())
    assert content["origin_px"] == [1000, 2000]
    spot, mitosis = (shapely.from_geojson(json.dumps(f["geometry"])).bounds for f in content["features"])
    assert spot == (0, 0, 100, 100)
    assert mitosis == (10, 20, 14, 24)
    FeatureCollection.model_validate(content)


def test_without_an_offset_the_file_says_nothing_of_it(tmp_path: Path) -> None:
    assert "origin_px" not in write(tmp_path / "m.geojson", None).read_text()


def test_a_file_with_an_offset_is_read_back_in_level_0_pixels(tmp_path: Path) -> None:
    assert read_marks(write(tmp_path / "m.geojson", (1000, 2000))).points_px.tolist() == [[1012, 2022]]


def test_what_qupath_exports_counts_from_what_the_manifest_says(tmp_path: Path) -> None:
    read(tmp_path, feature("Mitosis"))
    assert read_marks(tmp_path / "m.geojson", (5, 6)).points_px.tolist() == [[15, 26]]


@pytest.mark.parametrize("origin", [None, "1", [1], [1, None], {"x": 1}, [1e300, 0], [float("nan"), 0]])
def test_an_offset_that_is_none_is_told(tmp_path: Path, origin: Any) -> None:
    (tmp_path / "m.json").write_text(
        json.dumps({"type": "FeatureCollection", "origin_px": origin, "features": []})
    )
    with pytest.raises(InputError, match="origin_px"):
        read_marks(tmp_path / "m.json")


def test_an_objects_id_is_that_of_the_slide_and_the_place_whatever_else_is_found(tmp_path: Path) -> None:
    squares = np.array([shapely.box(0, 0, 2, 2), shapely.box(10, 20, 12, 22)], object)
    first = np.array([[0, 0], [10, 20]])
    ids = {}
    for name, kept, origin in (("both", [0, 1], None), ("second", [1], (5, 5))):
        path = tmp_path / f"{name}.geojson"
        area = {"Area um2": np.ones(len(kept))}
        write_geojson(path, Mitoses(squares[kept], area, first[kept], "slide", origin), None)
        ids[name] = [f["id"] for f in json.loads(path.read_text())["features"]]
    assert ids["second"] == ids["both"][1:]
    assert len(set(ids["both"])) == 2
