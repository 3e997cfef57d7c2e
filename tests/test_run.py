"""The main job, end to end, through the command line, on synthetic slides."""

import csv
import json
import re
import shutil
from pathlib import Path

import geopandas
import jsonschema
import numpy as np
import pytest
import shapely
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label import ImageLabel

from wsi_minugan import schemas
from wsi_minugan.minugan.bundle import BUNDLED
from wsi_minugan.outputs.manifest import verify
from wsi_minugan.slides.synthetic import SyntheticSlide

ID = "synthetic slide"


def test_every_json_validates_against_its_schema(finished: Path) -> None:
    for name, path in {
        "count": finished / ID / "count.json",
        "manifest": finished / ID / "manifest.json",
        "mitoses": finished / ID / "mitoses.geojson",
        "run": finished / "run.json",
    }.items():
        schema = json.loads((schemas.FOLDER / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))


def test_the_table_has_a_row_for_the_slide(finished: Path) -> None:
    with (finished / "slides.csv").open(encoding="utf-8-sig") as f:
        rows = list(csv.DictReader(f))
    assert [(r["slide_id"], r["status"]) for r in rows] == [(ID, "done")]
    assert float(rows[0]["tissue_mm2"]) > 0


def test_masks_are_ome_zarr_with_matching_labels(finished: Path) -> None:
    store = zarr.open_group(finished / ID / "masks.zarr", mode="r")
    Image.from_zarr(store)
    for name in ("classes", "mitoses", "nuclei"):
        ImageLabel.from_zarr(store[f"labels/{name}"])
    classes, mitoses, nuclei = (np.asarray(store[f"labels/{n}/0"]) for n in ("classes", "mitoses", "nuclei"))
    assert np.array_equal(classes == 2, mitoses > 0)
    assert np.array_equal(classes == 1, nuclei > 0)
    assert np.asarray(store["coverage/0"])[classes > 0].all()


def test_blank_glass_is_background(finished: Path, drawing: SyntheticSlide) -> None:
    classes = np.asarray(zarr.open_array(finished / ID / "masks.zarr" / "labels" / "classes" / "0", mode="r"))
    assert not classes[:100, :100].any()
    assert not classes[-100:, -100:].any()


def test_polygons_lie_on_their_mask_and_follow_qupaths_rules(finished: Path) -> None:
    mitoses = np.asarray(zarr.open_array(finished / ID / "masks.zarr" / "labels" / "mitoses" / "0", mode="r"))
    content = json.loads((finished / ID / "mitoses.geojson").read_text())
    detections = [f for f in content["features"] if f["properties"]["objectType"] == "detection"]
    assert len(detections) == mitoses.max()
    assert len({f["id"] for f in content["features"]}) == len(content["features"])
    assert "null" not in (finished / ID / "mitoses.geojson").read_text()
    for feature in detections:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", feature["id"])
        polygon = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert polygon.is_valid
        x, y = polygon.representative_point().coords[0]
        assert mitoses[int(y), int(x)] > 0


def test_the_hot_spot_and_the_fields_are_locked_annotations_where_count_json_has_them(
    finished: Path,
) -> None:
    count = json.loads((finished / ID / "count.json").read_text())
    features = json.loads((finished / ID / "mitoses.geojson").read_text())["features"]
    windows = [f for f in features if f["properties"]["objectType"] == "annotation"]
    assert all(f["properties"]["isLocked"] is True for f in windows)
    names = [f["properties"]["classification"]["name"] for f in windows]
    held = [k for k, number in enumerate(count["fields"]["counts"]) if number]
    assert names == ["Hot spot", *["High-power field"] * len(held)]
    for outline, k in zip(windows[1:], held, strict=True):
        centre, number = count["fields"]["centers_px"][k], count["fields"]["counts"][k]
        polygon = shapely.from_geojson(json.dumps(outline["geometry"]))
        assert polygon.centroid.coords[0] == pytest.approx(centre, abs=0.02)
        assert 2 * np.sqrt(polygon.area / np.pi) * count["mpp"] == pytest.approx(500, rel=1e-3)
        assert f": {number} mitos" in outline["properties"]["name"]


def test_nuclei_are_geoparquet_that_geopandas_opens(finished: Path) -> None:
    nuclei = geopandas.read_parquet(finished / ID / "nuclei.parquet")
    labels = np.asarray(zarr.open_array(finished / ID / "masks.zarr" / "labels" / "nuclei" / "0", mode="r"))
    assert len(nuclei) == labels.max()
    assert nuclei.geometry.is_valid.all()
    # An object's area and centroid are its polygon's, which runs along its pixels to within half a pixel.
    assert nuclei.area_um2.to_numpy() == pytest.approx(nuclei.geometry.area.to_numpy() * 0.25**2)
    assert nuclei.centroid_x_px.to_numpy() == pytest.approx(nuclei.geometry.centroid.x.to_numpy())
    pixels = np.bincount(labels.ravel())[1:] * 0.25**2
    assert nuclei.area_um2.to_numpy() == pytest.approx(pixels[nuclei.nucleus.to_numpy() - 1], rel=0.25)


def test_an_objects_area_is_its_polygons_as_qupath_shows_it(finished: Path) -> None:
    features = json.loads((finished / ID / "mitoses.geojson").read_text())["features"]
    for feature in features:
        if feature["properties"]["objectType"] == "annotation":
            continue
        area = shapely.from_geojson(json.dumps(feature["geometry"])).area * 0.25**2
        assert feature["properties"]["measurements"]["Area um2"] == pytest.approx(area, abs=1e-4)


def test_the_manifest_seals_every_file(finished: Path) -> None:
    assert verify(finished / ID) == []


def test_the_report_is_one_offline_file(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    assert ID in html
    assert "data:image/jpeg;base64," in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


@pytest.mark.slow
def test_any_block_size_and_worker_count_give_the_same_result(
    tmp_path: Path, slide: Path, finished: Path, run_command
) -> None:
    done = run_command("run", slide, "-o", tmp_path / "o", "--block", "1024", "--batch-size", "5")
    assert done.returncode == 0, done.stderr
    for name in ("labels/classes", "labels/mitoses", "labels/nuclei", "mitosis_score", "coverage"):
        a, b = (
            np.asarray(zarr.open_array(o / ID / "masks.zarr" / name / "0", mode="r"))
            for o in (finished, tmp_path / "o")
        )
        assert np.array_equal(a, b), name
    for name in ("count.json", "mitoses.geojson"):
        assert (tmp_path / "o" / ID / name).read_bytes() == (finished / ID / name).read_bytes(), name
    a, b = (geopandas.read_parquet(o / ID / "nuclei.parquet") for o in (finished, tmp_path / "o"))
    assert (a.nucleus == b.nucleus).all()
    assert a.geometry.geom_equals(b.geometry).all()


def test_counting_a_result_again_gives_the_same_count(finished: Path, tmp_path: Path, run_command) -> None:
    done = run_command("count", finished / ID, "-o", tmp_path / "count.json")
    assert done.returncode == 0, done.stderr
    before, again = (
        json.loads(p.read_text()) for p in (finished / ID / "count.json", tmp_path / "count.json")
    )
    assert before == again


@pytest.mark.slow
def test_the_class_map_is_the_same_without_nuclei(
    finished: Path, slide: Path, tmp_path: Path, run_command
) -> None:
    flags = ("--block", "512", "--no-nuclei")
    done = run_command("run", slide, "-o", tmp_path / "o", *flags)
    assert done.returncode == 0, done.stderr
    maps = [
        np.asarray(zarr.open_array(o / ID / "masks.zarr" / "labels" / "classes" / "0", mode="r"))
        for o in (finished, tmp_path / "o")
    ]
    assert np.array_equal(*maps)
    assert not (tmp_path / "o" / ID / "masks.zarr" / "labels" / "nuclei").exists()


def test_counting_a_geojson_needs_its_resolution(finished: Path, tmp_path: Path, run_command) -> None:
    path = finished / ID / "mitoses.geojson"
    done = run_command("count", path)
    assert done.returncode == 2
    assert "--mpp" in done.stderr
    done = run_command("count", tmp_path / "mistyped.geojson")
    assert done.returncode == 2
    assert "There is no file" in done.stderr
    done = run_command(
        "count", path, "--mpp", "0.25", "--shape", "circle", "--area-mm2", "2.0", "-o", tmp_path / "c.json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "c.json").read_text())["hotspot"]["area_mm2"] == 2.0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mpp", "nan"], "--mpp"),
        (["--mpp", "0"], "--mpp"),
        (["--area-mm2", "nan"], "--area-mm2"),
        (["--area-mm2", "inf"], "--area-mm2"),
        (["--hpf-diameter-mm", "-1"], "--hpf-diameter-mm"),
        (["--hpf-diameter-mm", "nan"], "--hpf-diameter-mm"),
    ],
)
def test_a_number_that_makes_no_count_is_refused(
    finished: Path, run_command, flags: list[str], words: str
) -> None:
    done = run_command("count", finished / ID, *flags)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in done.stderr


def test_counting_a_whole_batch_says_to_name_a_slide(finished: Path, run_command) -> None:
    done = run_command("count", finished)
    assert done.returncode == 2
    assert "one slide" in done.stderr


def test_running_again_does_nothing_again(finished: Path, slide: Path, run_command) -> None:
    before = (finished / ID / "manifest.json").stat().st_mtime_ns
    done = run_command("run", slide, "-o", finished, "--block", "512")
    assert done.returncode == 0, done.stderr
    assert (finished / ID / "manifest.json").stat().st_mtime_ns == before


def test_schemas_are_those_of_the_models() -> None:
    for name in schemas.MODELS:
        committed = json.loads((schemas.FOLDER / f"{name}.schema.json").read_text())
        assert committed == json.loads(json.dumps(schemas.schema_of(name))), f"run: make schemas ({name})"


def test_drawn_mitoses_are_found_and_little_else(finished: Path, drawing: SyntheticSlide) -> None:
    # The model was trained on tissue, to which drawings are strange: it need not find them all.
    features = json.loads((finished / ID / "mitoses.geojson").read_text())["features"]
    found = [
        shapely.geometry.shape(f["geometry"]).centroid
        for f in features
        if f["properties"]["objectType"] == "detection"
    ]
    near = [any(np.hypot(x - c.x, y - c.y) < 30 for c in found) for x, y in drawing.mitoses_xy_px]
    assert sum(near) >= 6, (sum(near), len(found))
    assert len(found) <= 1.5 * sum(near), (sum(near), len(found))


def test_the_manifest_names_the_arithmetic_that_all_blocks_had(finished: Path) -> None:
    manifest = json.loads((finished / ID / "manifest.json").read_text())
    assert manifest["settings"]["precision"] in {"fp32", "bf16"}


@pytest.mark.slow
def test_ids_stay_when_the_hot_spots_area_or_the_models_place_change(
    finished: Path, slide: Path, tmp_path: Path, run_command
) -> None:
    shutil.copytree(BUNDLED / "default", tmp_path / "model")
    flags = ("--block", "1024", "--hotspot-mm2", "0.05", "--model", tmp_path / "model")
    done = run_command("run", slide, "-o", tmp_path / "o", *flags)
    assert done.returncode == 0, done.stderr
    before, again = (
        json.loads((o / ID / "mitoses.geojson").read_text())["features"] for o in (finished, tmp_path / "o")
    )
    assert before[0]["geometry"] != again[0]["geometry"]
    assert [f["id"] for f in before] == [f["id"] for f in again]


@pytest.mark.slow
def test_with_bounds_offset_the_export_and_the_manifest_record_it_and_counting_goes_on(
    finished: Path, slide: Path, tmp_path: Path, run_command
) -> None:
    flags = ("--block", "512", "--bounds-offset")
    done = run_command("run", slide, "-o", tmp_path / "o", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "o" / ID
    assert json.loads((folder / "mitoses.geojson").read_text())["origin_px"] == [0, 0]
    written = json.loads((folder / "manifest.json").read_text())
    assert (written["settings"]["bounds_offset"], written["geojson_origin_px"]) == (True, [0, 0])
    # A slide that QuPath crops: as the run would have written it, with bounds at 300, 200.
    content = json.loads((folder / "mitoses.geojson").read_text())
    for feature in content["features"]:
        moved = shapely.from_geojson(json.dumps(feature["geometry"]))
        moved = shapely.transform(moved, lambda xy: xy - [300, 200])
        feature["geometry"] = json.loads(shapely.to_geojson(moved))
    (folder / "mitoses.geojson").write_text(json.dumps(content | {"origin_px": [300, 200]}))
    for source in ([folder], [folder / "mitoses.geojson", "--mpp", "0.25"]):
        done = run_command("count", *source, "-o", tmp_path / "c.json")
        assert done.returncode == 0, done.stderr
        spot = json.loads((tmp_path / "c.json").read_text())["hotspot"]
        before = json.loads((finished / ID / "count.json").read_text())["hotspot"]
        assert spot["center_x_px"] == pytest.approx(before["center_x_px"], abs=2)
        assert spot["mitoses"] == before["mitoses"]


def test_a_hot_spot_mostly_off_the_tissue_is_told_in_manifest_and_report(finished: Path) -> None:
    # The drawing is smaller than the hot spot.
    (warning,) = json.loads((finished / ID / "count.json").read_text())["warnings"]
    assert "of the hot spot's 1.96 mm2 was analysed tissue" in warning
    assert warning in json.loads((finished / ID / "manifest.json").read_text())["warnings"]
    assert warning.split("'")[0] in (finished / "report.html").read_text()


def test_the_report_shows_the_hot_spots_tissue_and_both_scores(finished: Path) -> None:
    html = (finished / "report.html").read_text()
    count = json.loads((finished / ID / "count.json").read_text())
    assert html.index(">Nottingham</button>") < html.index(">TUPAC16</button>")
    assert f"<td>{100 * count['hotspot']['tissue_fraction']:.0f} %</td>" in html
