"""Reading mitoses back, as QuPath's versions and other programs write them."""

import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson import (
    HOTSPOT,
    FeatureCollection,
    Marks,
    Mitoses,
    Window,
    as_written,
    centroids_of,
    read_marks,
    write_geojson,
)
from wsi_minugan.outputs.objects import read_objects, read_regions

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
        "High-power field",
        "Non-mitosis",
        "Mitosis-like",
        "Mitotic figure look-alike",
        "Mitotic figure imposter",
        "Mitosis: Negative",
        "Mitosis?",
        "Mitosis_no",
        "Mitosis: artefact",
        "Mitotic figure, apoptotic",
        "Mitosis candidate",
        {"names": ["Mitosis", "Negative"], "color": [1, 2, 3]},
        "Ignore*",
        {"names": ["Tumor"], "color": [1, 2, 3]},
    ],
)
def test_other_classes_do_not_count_and_are_told(tmp_path: Path, classification: Any) -> None:
    marks = read(tmp_path, feature(classification), feature("Mitosis"))
    assert len(marks.points_px) == 1
    assert sum(marks.left_out.values()) == 1


@pytest.mark.parametrize("name", ["Hot spot: 3 mitoses in 2.00 mm2", "High-power field 3: 1 mitosis"])
def test_what_we_drew_around_mitoses_is_none_even_without_its_class(tmp_path: Path, name: str) -> None:
    window = feature(None, SQUARE, name=name)
    assert len(read(tmp_path, window, feature("Mitosis")).points_px) == 1


def test_a_whole_number_that_no_float_holds_is_told(tmp_path: Path) -> None:
    ring = [[10**400, 0], [4, 0], [4, 4], [10**400, 0]]
    (tmp_path / "m.geojson").write_text(
        json.dumps([feature("Mitosis", {"type": "Polygon", "coordinates": [ring]})])
    )
    for reader in (read_marks, read_objects):
        with pytest.raises(InputError, match="no geometry that can be read"):
            reader(tmp_path / "m.geojson")
    (tmp_path / "m.geojson").write_text(
        json.dumps([feature("Region", {"type": "Polygon", "coordinates": [ring]})])
    )
    with pytest.raises(InputError, match="no geometry that can be read"):
        read_regions(tmp_path / "m.geojson")


def test_points_multipoints_and_polygons_count_by_their_centres(tmp_path: Path) -> None:
    several = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    marks = read(tmp_path, feature("Mitosis", several), feature("Mitosis", SQUARE), feature(None))
    assert marks.points_px.tolist() == [[1, 2], [3, 4], [2, 2], [10, 20]]
    assert marks.unclassed == 1


def test_classes_that_were_counted_are_listed(tmp_path: Path) -> None:
    several = {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}
    marks = read(tmp_path, feature("Mitosis", several), feature("Mitotic figure"), feature(None))
    assert marks.by_class == {"Mitosis": 2, "Mitotic figure": 1, "": 1}


def test_a_bare_array_as_qupath_exports_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.geojson").write_text(json.dumps([feature("Mitosis"), feature("Tumor")]))
    marks = read_marks(tmp_path / "m.geojson", (5, 6))
    assert marks.points_px.tolist() == [[15, 26]]
    assert marks.left_out == {"Tumor": 1}


def zipped(path: Path, *names: str) -> Path:
    content = json.dumps([feature("Mitosis")])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("names", [["slide.geojson"], ["a/slide.json", "__MACOSX/a/._slide.json", "read me"]])
def test_a_zip_as_qupath_exports_it_is_read_whatever_its_name(tmp_path: Path, names: list[str]) -> None:
    assert len(read_marks(zipped(tmp_path / "m.zip", *names)).points_px) == 1
    assert len(read_marks(zipped(tmp_path / "m.geojson", *names)).points_px) == 1


@pytest.mark.parametrize("names", [[], ["a.json", "b.geojson"]])
def test_a_zip_of_none_or_several_is_told(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"zip that holds \d GeoJSON|cannot be read"):
        read_marks(zipped(tmp_path / "m.zip", *names))


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    whole = io.BytesIO(zipped(tmp_path / "m.zip", "a.json").read_bytes()).getvalue()
    for broken in (whole[:40], whole[:30] + bytes(20) + whole[50:]):
        (tmp_path / "m.zip").write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read"):
            read_marks(tmp_path / "m.zip")


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
    "text",
    ["", "5", '"a"', "[5]", "[" * 100_000, '{"type": "FeatureCollection"}', '{"a": ' + "9" * 5000 + "}"],
)
def test_what_is_no_geojson_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "marks.json").write_text(text)
    with pytest.raises(InputError, match="marks"):
        read_marks(tmp_path / "marks.json")


WINDOW = Window(HOTSPOT, "hotspot", shapely.box(1000, 2000, 1100, 2100))


def write(path: Path, origin: tuple[int, int] | None) -> Path:
    mitosis = np.array([shapely.box(1010, 2020, 1014, 2024)], object)
    first = np.array([[1010, 2020]])
    write_geojson(path, Mitoses(mitosis, {"Area um2": np.array([1.0])}, first, "d", origin), [WINDOW])
    return path


def test_with_an_offset_coordinates_count_from_the_slides_bounds_and_the_file_says_so(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path / "m.geojson", (1000, 2000)).read_text())
    assert content["origin_px"] == [1000, 2000]
    spot, mitosis = (shapely.from_geojson(json.dumps(f["geometry"])).bounds for f in content["features"])
    assert spot == (0, 0, 100, 100)
    assert mitosis == (10, 20, 14, 24)
    FeatureCollection.model_validate(content)


def test_the_hot_spot_is_locked_and_classes_are_told_apart_as_tiatoolbox_does(tmp_path: Path) -> None:
    spot, mitosis = json.loads(write(tmp_path / "m.geojson", None).read_text())["features"]
    assert spot["properties"]["isLocked"] is True
    assert "isLocked" not in mitosis["properties"]
    assert (spot["properties"]["type"], mitosis["properties"]["type"]) == ("Hot spot", "Mitosis")


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
        write_geojson(path, Mitoses(squares[kept], area, first[kept], "slide", origin))
        ids[name] = [f["id"] for f in json.loads(path.read_text())["features"]]
    assert ids["second"] == ids["both"][1:]
    assert len(set(ids["both"])) == 2


def test_a_files_places_are_those_that_were_counted_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, (20, 9)), axis=1)
    corners = 1000 * rng.random((20, 1, 2)) + 20 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    shapes = as_written(shapely.polygons(corners))
    first = np.arange(40).reshape(20, 2)
    path = tmp_path / "m.geojson"
    write_geojson(path, Mitoses(shapes, {"Area um2": np.ones(20)}, first, "d", None), [WINDOW])
    assert np.array_equal(read_marks(path).points_px, centroids_of(shapes))
    assert len(np.unique(np.round(read_marks(path).points_px % 0.01, 6))) > 10
    write_geojson(path, Mitoses(shapes, {"Area um2": np.ones(20)}, first, "d", (1000, 2000)), [WINDOW])
    assert read_marks(path).points_px == pytest.approx(centroids_of(shapes), abs=1e-6)
    assert all(
        len(number.rpartition(".")[2]) <= 2 for number in re.findall(r"\d+\.\d+(?=[,\]])", path.read_text())
    )
