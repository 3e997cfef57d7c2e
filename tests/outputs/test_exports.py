"""Exports open where they are meant to, hold every object once, and are streamed."""

import csv
import gzip
import json
import re
import resource
import sqlite3
import subprocess
import sys
import uuid
import zipfile
import zlib
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
import zarr
from click.testing import CliRunner
from minugan_cli.main import EXPORTS, app
from zarr.storage import ZipStore

from tests.outputs.test_report import manifest_checksum
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.outputs.exports.files import FORMATS
from wsi_minugan.outputs.exports.objects import snapped
from wsi_minugan.outputs.geojson import (
    FIELD,
    HOTSPOT,
    FeatureCollection,
    Mitoses,
    Window,
    as_written,
    circle,
    read_marks,
    write_geojson,
)
from wsi_minugan.outputs.nuclei import write_nuclei
from wsi_minugan.segmentation.masks import writing

WINDOWS = (
    Window(HOTSPOT, "hotspot", circle(5050, 6000, 300), "Hot spot"),
    Window(FIELD, "field 1", circle(5050, 6000, 200), "High-power field 1: 2 mitoses"),
)


def hexagons(count: int, first: int = 0) -> np.ndarray:
    """Return nuclei-like polygons in rows of 1,000, numbered from `first` on."""
    k = np.arange(first, first + count)
    middles = np.stack([20.0 + 40 * (k % 1000), 20.0 + 40 * (k // 1000)], axis=-1)[:, None]
    angles = np.arange(24) * np.pi / 12
    return shapely.polygons(middles + 12.345678 * np.stack([np.cos(angles), np.sin(angles)], axis=-1))


def batches(count: int):
    for start in range(0, count, 50_000):
        n = min(50_000, count - start)
        shapes = hexagons(n, start)
        xy = shapely.get_coordinates(shapely.centroid(shapes))
        yield {
            "nucleus": np.arange(start + 1, start + n + 1, dtype=np.uint32),
            "centroid_x_px": xy[:, 0],
            "centroid_y_px": xy[:, 1],
            "area_um2": shapely.area(shapes) / 16,
            "geometry": shapely.to_wkb(shapes),
        }


def slide_folder(folder: Path, nuclei: int, origin: tuple[int, int] | None = None) -> Path:
    """Make the folder of a finished slide with two mitoses and some nuclei."""
    folder.mkdir(parents=True)
    shapes = as_written([shapely.box(5000, 6000, 5020, 6010), shapely.box(5100.25, 6000, 5110, 6010)])
    numbers = {
        "Area um2": shapely.area(shapes) / 16,
        "Peak score": np.array([0.9, 1.0]),
        "Mean score": np.ones(2),
    }
    found = Mitoses(shapes, numbers, np.array([[5000, 6000], [5100, 6000]]), "f", origin)
    write_geojson(folder / "mitoses.geojson", found, WINDOWS)
    if nuclei:
        write_nuclei(folder / "nuclei.parquet", batches(nuclei), folder.name, 0.25)
    writing.create_store(folder / "masks.zarr", Frame(700, 600, 0.25, 1.0, 700, 600), 512, nuclei=True)
    manifest_checksum(folder)
    if origin:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"geojson_origin_px": origin}))
    return folder


def exported(out: Path, kind: str, *arguments: str) -> list[Path]:
    done = CliRunner().invoke(app, ["export", str(out), "--to", kind, *arguments])
    assert done.exit_code == 0, done.output
    return [Path(line.rsplit("  ", 1)[0]) for line in done.output.splitlines()]


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == EXPORTS


def test_a_run_is_exported_slide_by_slide_and_a_slide_alone(tmp_path: Path) -> None:
    for name in ("a", "b c"):
        slide_folder(tmp_path / "out" / name, 3)
    (tmp_path / "out" / "c").mkdir()
    both = exported(tmp_path / "out", "csv")
    assert both == [tmp_path / "out" / "export" / f"{n}.csv" for n in ("a", "b c")]
    assert exported(tmp_path / "out" / "a", "csv") == both[:1]
    assert exported(tmp_path / "out" / "a", "csv", "-o", str(tmp_path / "x")) == [tmp_path / "x" / "a.csv"]


def test_what_holds_no_results_is_told(tmp_path: Path) -> None:
    for place, words in ((tmp_path, "no finished slides"), (tmp_path / "none", "no folder")):
        done = CliRunner().invoke(app, ["export", str(place), "--to", "csv"])
        assert words in str(done.exception)


@pytest.mark.parametrize("kind", ["qupath", "geojson.gz"])
@pytest.mark.parametrize("origin", [None, (1000, 2000)])
def test_qupath_gets_mitoses_and_nuclei_by_its_rules(
    tmp_path: Path, kind: str, origin: tuple[int, int] | None
) -> None:
    folder = slide_folder(tmp_path / "out" / "a", 30, origin)
    (path,) = exported(folder, kind)
    text = gzip.decompress(path.read_bytes()).decode() if kind == "geojson.gz" else path.read_text()
    content = json.loads(text)
    FeatureCollection.model_validate(content)
    features = content["features"]
    assert "null" not in text
    kinds = [(f["properties"]["classification"]["name"], f["properties"]["objectType"]) for f in features]
    assert kinds == [
        ("Hot spot", "annotation"),
        ("High-power field", "annotation"),
        *[("Mitosis", "detection")] * 2,
        *[("Nucleus", "detection")] * 30,
    ]
    ids = [f["id"] for f in features]
    assert len({uuid.UUID(i) for i in ids}) == len(ids)
    assert ids[:4] == [f["id"] for f in json.loads((folder / "mitoses.geojson").read_text())["features"]]
    shapes = [shapely.from_geojson(json.dumps(f["geometry"])) for f in features]
    assert all(s.is_valid and s.geom_type == "Polygon" for s in shapes)
    assert all(
        len(n.rpartition(".")[2]) <= 2
        for n in re.findall(r"-?\d+\.\d+(?=[,\]])", text.split("measurements")[0])
    )
    marks = read_marks(path)
    assert marks.points_px.tolist() == pytest.approx(np.array([[5010, 6005], [5105.125, 6005]]))
    moved = np.array(origin or (0, 0))
    first = shapely.get_coordinates(shapes[4].centroid)[0] + moved
    assert first == pytest.approx([20, 20], abs=0.01)


def test_what_qupath_would_refuse_is_mended_or_left_out() -> None:
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    thin = shapely.Polygon([(0, 0), (1, 0.001), (2, 0)])
    mended, nothing, plain = snapped(np.array([bow, thin, shapely.box(0, 0, 1, 1)], object))
    assert mended.is_valid
    assert nothing.is_empty
    assert plain.geom_type == "Polygon"


def test_what_lies_between_the_grids_points_is_brought_onto_it_and_the_rest_stays_as_it_is() -> None:
    on, between = shapely.box(0, 0, 7.25, 3.5), shapely.box(0.001, 0, 7.252, 3.499)
    kept, moved = snapped(np.array([on, between], object))
    assert shapely.equals(kept, on)
    assert moved.bounds == (0, 0, 7.25, 3.5)
    # GEOS would round what is computed of a shape with a grid to it.
    assert shapely.centroid(kept).coords[0] == shapely.centroid(moved).coords[0] == (3.625, 1.75)
    assert shapely.get_precision(moved) == 0


def test_tables_hold_every_object_with_place_and_area(tmp_path: Path) -> None:
    folder = slide_folder(tmp_path / "out" / "a", 30)
    with exported(folder, "csv")[0].open(encoding="utf-8-sig", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [r["class"] for r in rows] == ["Mitosis"] * 2 + ["Nucleus"] * 30
    assert (rows[0]["x_px"], rows[0]["x_um"], rows[0]["area_um2"], rows[0]["peak_score"]) == (
        "5010.0",
        "1252.5",
        "12.5",
        "0.9",
    )
    assert rows[2]["peak_score"] == ""
    table = geopandas.read_parquet(exported(folder, "parquet")[0])
    assert table["class"].tolist() == [r["class"] for r in rows]
    assert table.id.tolist() == [r["id"] for r in rows]
    assert table.area_um2.to_numpy() == pytest.approx(table.geometry.area.to_numpy() / 16)
    assert table.peak_score.isna().sum() == 30


def test_an_annotation_store_has_tiatoolboxs_tables(tmp_path: Path) -> None:
    folder = slide_folder(tmp_path / "out" / "a", 30)
    (path,) = exported(folder, "annotationstore")
    with sqlite3.connect(path) as db:
        told = {k: json.loads(v) for k, v in db.execute("SELECT key, value FROM metadata")}
        rows = db.execute(
            "SELECT objtype, cx, cy, geometry, properties, area, min_x, max_x FROM annotations JOIN rtree USING (id) ORDER BY id"
        ).fetchall()
    assert (told["version"], told["compression"]) == ("1.0.1", "zlib")
    assert len(rows) == 34
    kind, cx, cy, geometry, properties, area, min_x, max_x = rows[2]
    assert shapely.from_wkb(zlib.decompress(geometry)).equals(shapely.box(5000, 6000, 5020, 6010))
    assert (kind, cx, cy, area, json.loads(properties)["type"]) == ("Polygon", 5010, 6005, 200, "Mitosis")
    assert min_x <= 5000 < 5020 <= max_x
    assert json.loads(rows[4][4])["type"] == "Nucleus"


def test_masks_in_one_zip_open_as_they_are(tmp_path: Path) -> None:
    folder = slide_folder(tmp_path / "out" / "a", 0)
    writing.write_block(folder / "masks.zarr", "classes", Box(0, 0, 512, 512), np.ones((512, 512), np.uint8))
    (path,) = exported(folder, "ome-zarr-zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] == "zarr.json"
        assert json.loads(archive.comment) == {"ome": {"version": "0.5"}}
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    group = zarr.open_group(ZipStore(path, mode="r"), mode="r")
    assert group.attrs["ome"]["version"] == "0.5"
    assert np.asarray(group["labels/classes/0"]).sum() == 512 * 512
    again = path.read_bytes()
    exported(folder, "ome-zarr-zip")
    assert path.read_bytes() == again


LIMIT = """
import resource, sys
from pathlib import Path
from wsi_minugan.outputs.exports.files import FORMATS
from wsi_minugan.outputs.exports.objects import open_slide_folder
slide = open_slide_folder(Path(sys.argv[1]))
FORMATS[sys.argv[3]][1](slide, Path(sys.argv[2]).with_suffix(".first"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slide = open_slide_folder(Path(sys.argv[4]))
print(FORMATS[sys.argv[3]][1](slide, Path(sys.argv[2])), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of a slide of 20,000 nuclei and of one of 100,000."""
    folder = tmp_path_factory.mktemp("nuclei")
    return slide_folder(folder / "few", 20_000), slide_folder(folder / "many", 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qupath", "csv", "parquet", "annotationstore"])
def test_many_nuclei_take_no_more_memory_than_few_and_a_minute_at_most(
    tmp_path: Path, few_and_many: tuple[Path, Path], kind: str
) -> None:
    few, many = few_and_many
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    arguments = [few, tmp_path / "out.x", kind, many]
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, kilobytes = map(int, done.stdout.split())
    assert count >= 100_002
    assert kilobytes < 60_000
    # The processor's time: other processes of the machine are not the export's fault.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 60
