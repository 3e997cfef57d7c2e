"""Areas and points in regions are exact."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_minugan.counting.regions import TissueRaster, centres_in, covered_cells, points_in

polygons = st.lists(st.tuples(st.integers(-5, 90), st.integers(-5, 90)), min_size=3, max_size=8).map(
    lambda xy: shapely.buffer(shapely.convex_hull(shapely.MultiPoint(xy)), 3.3)
)


@given(polygons, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_tissue_in_a_region_is_the_sum_of_its_cells_cut_at_the_border(
    region: shapely.Geometry, seed: int
) -> None:
    tissue = np.random.default_rng(seed).random((11, 9)) < 0.6
    raster = TissueRaster(tissue, 8.0, 70.0, 85.0)
    cells = [
        shapely.box(c * 8, r * 8, min(c * 8 + 8, 70), min(r * 8 + 8, 85)) for r, c in np.argwhere(tissue)
    ]
    expected = sum(shapely.area(shapely.intersection(cell, region)) for cell in cells)
    assert raster.area_mm2(1000.0, region) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert raster.area_mm2(1000.0) == pytest.approx(sum(map(shapely.area, cells)))


@given(polygons)
@settings(max_examples=60, deadline=None)
def test_cells_are_whole_cut_or_outside(region: shapely.Geometry) -> None:
    whole, cut = covered_cells(region, (11, 9), 8.0)
    centres = centres_in(region, (11, 9), 8.0)
    assert not (whole & cut).any()
    for r, c in np.ndindex(11, 9):
        box = shapely.box(c * 8, r * 8, c * 8 + 8, r * 8 + 8)
        assert whole[r, c] == shapely.covers(region, box)
        assert (whole | cut)[r, c] == shapely.intersects(region, box)
        assert centres[r, c] == shapely.intersects(region, shapely.Point(c * 8 + 4, r * 8 + 4))


def test_a_point_on_the_border_is_in_the_region() -> None:
    assert points_in(shapely.box(0, 0, 10, 10), np.array([[0.0, 5.0], [5.0, 5.0], [10.1, 5.0]])).tolist() == [
        True,
        True,
        False,
    ]
