"""Tables open in what people open them with: slides.csv in a spreadsheet, nuclei.parquet in GeoPandas and QGIS."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely

from wsi_minugan.outputs.models import SlideState
from wsi_minugan.outputs.nuclei import write_nuclei
from wsi_minugan.outputs.tables import write_slides


def rows_of(path: Path, *slides: SlideState) -> list[dict[str, str]]:
    write_slides(path, slides)
    with path.open(encoding="utf-8-sig", newline="") as f:
        return list(csv.DictReader(f))


def test_excel_sees_that_the_table_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "slides.csv"
    (row,) = rows_of(path, SlideState(slide_id="Präparat 1", path="é", status="done"))
    assert path.read_bytes().startswith(b"\xef\xbb\xbfslide_id,")
    assert (row["slide_id"], row["path"]) == ("Präparat 1", "é")


def test_the_table_holds_the_hot_spots_density_and_the_warnings(tmp_path: Path) -> None:
    done = SlideState(
        slide_id="a", path="a", status="done", hotspot_mitoses_per_mm2=7.64, warnings=("One thing.", "Two.")
    )
    (row, other) = rows_of(tmp_path / "s.csv", done, SlideState(slide_id="b", path="b", status="pending"))
    assert (row["hotspot_mitoses_per_mm2"], row["warnings"]) == ("7.64", "One thing. Two.")
    assert (other["hotspot_mitoses_per_mm2"], other["warnings"]) == ("", "")


def test_a_cell_is_no_formula(tmp_path: Path) -> None:
    (row,) = rows_of(
        tmp_path / "s.csv", SlideState(slide_id="=1+1", path="", status="done", warnings=("@x",))
    )
    assert (row["slide_id"], row["warnings"]) == ("'=1+1", "'@x")


def test_nuclei_say_their_geometry_their_slide_and_its_resolution(tmp_path: Path) -> None:
    batch = {
        "nucleus": np.array([1], np.uint32),
        "centroid_x_px": np.ones(1),
        "centroid_y_px": np.ones(1),
        "area_um2": np.ones(1),
        "geometry": shapely.to_wkb([shapely.box(0, 0, 2, 2)]),
    }
    for name, batches in (("one", [batch]), ("none", [])):
        path = tmp_path / f"{name}.parquet"
        assert write_nuclei(path, batches, "Präparat 1", 0.2431) == len(batches)
        told = pq.read_schema(path).metadata
        assert json.loads(told[b"geo"])["columns"]["geometry"]["geometry_types"] == ["Polygon"]
        assert (told[b"slide_id"].decode(), float(told[b"mpp"])) == ("Präparat 1", 0.2431)
