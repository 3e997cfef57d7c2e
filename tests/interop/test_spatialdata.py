"""Results as SpatialData, checked by its own models; runs in an environment of its own (docs/openings.md)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

# Only where it is not installed: one that is installed and cannot be imported is a failure.
if importlib.util.find_spec("spatialdata") is None:
    pytest.skip("needs spatialdata: make test-openings", allow_module_level=True)

from spatialdata import SpatialData, get_extent, read_zarr

from wsi_minugan import Result
from wsi_minugan.interop.spatial_data import to_spatialdata


@pytest.fixture(scope="module")
def result(opened: Path) -> Result:
    return Result.open(opened)


def test_every_part_of_a_result_is_there(result: Result) -> None:
    data = to_spatialdata(result)
    assert isinstance(data, SpatialData)
    assert {"classes", "mitoses", "nuclei"} == set(data.labels)
    assert {"mitosis_score", "coverage"} == set(data.images)
    assert {"mitosis_shapes", "nucleus_shapes", "hotspot"} == set(data.shapes)
    assert len(data.shapes["mitosis_shapes"]) == len(result.mitoses)
    assert len(data.shapes["nucleus_shapes"]) == len(result.nuclei)


def test_masks_and_shapes_lie_on_each_other_in_pixels_and_in_micrometres(result: Result) -> None:
    data = to_spatialdata(result)
    for system, scale in (("global", 1.0), ("um", result.mpp)):
        extent = get_extent(data["classes"], coordinate_system=system)
        assert extent["x"][1] == pytest.approx(result.manifest.slide.width_px * scale, rel=0.01)
        shapes = get_extent(data["nucleus_shapes"], coordinate_system=system)
        assert shapes["x"][1] == pytest.approx(result.nuclei.total_bounds[2] * scale, rel=1e-6)


def test_it_is_written_and_read_again(result: Result, tmp_path: Path) -> None:
    to_spatialdata(result).write(tmp_path / "slide.zarr")
    again = read_zarr(tmp_path / "slide.zarr")
    assert np.array_equal(np.asarray(again["classes"]), result.masks["classes"].data.compute())
    assert len(again["mitosis_shapes"]) == len(result.mitoses)
