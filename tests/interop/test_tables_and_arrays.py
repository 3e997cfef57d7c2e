"""DuckDB reads the tables, xarray the masks: nothing has to be converted."""

from pathlib import Path

import numpy as np
import pytest

from wsi_minugan import Result

# Before any run is made for them.
duckdb = pytest.importorskip("duckdb", reason="make test-openings has it")
xarray = pytest.importorskip("xarray", reason="make test-openings has it")


def test_duckdb_counts_the_nuclei_of_a_run(opened: Path) -> None:
    nuclei = Result.open(opened).nuclei
    found = duckdb.sql(f"SELECT count(*), avg(area_um2) FROM '{opened}/nuclei.parquet'").fetchall()
    assert found == [(len(nuclei), pytest.approx(nuclei.area_um2.mean()))]
    inside = duckdb.sql(
        f"SELECT count(*) FROM '{opened}/nuclei.parquet' WHERE centroid_x_px < 500 AND centroid_y_px < 500"
    ).fetchall()
    assert inside == [(len(nuclei[(nuclei.centroid_x_px < 500) & (nuclei.centroid_y_px < 500)]),)]
    # All slides of a run stand in one table.
    (row,) = duckdb.sql(f"SELECT slide_id, mitoses FROM '{opened.parent / 'slides.csv'}'").fetchall()
    assert row == (opened.name, Result.open(opened).count.mitoses)


def test_xarray_opens_a_level_of_the_masks_by_its_dimensions(opened: Path) -> None:
    result = Result.open(opened)
    place = result.folder / "masks.zarr" / "labels" / "classes"
    # Levels of a pyramid share the names of their dimensions, so one is opened at a time.
    others = [str(k) for k in range(1, len(result.masks["classes"].levels))]
    classes = xarray.open_zarr(place, consolidated=False, drop_variables=others)["0"]
    assert classes.dims == ("y", "x")
    assert np.array_equal(classes.values, result.masks["classes"].data.compute())
    step_y, step_x = result.masks["classes"].scale_um()
    h, w = classes.shape
    placed = classes.assign_coords(y=(np.arange(h) + 0.5) * step_y, x=(np.arange(w) + 0.5) * step_x)
    part = placed.sel(y=slice(0, 100), x=slice(50, 100))
    assert part.shape == (round(100 / step_y), round(50 / step_x))
