"""Windows: no placement holds more, several do not overlap, and they keep to tissue."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsi_minugan.counting.density import density_map, tiles_of
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.stability import stability_of
from wsi_minugan.counting.windows import Shape, circle_of, counts_at, find_windows, rectangle_of

coordinates = st.one_of(st.integers(0, 40).map(float), st.floats(0, 40, width=32))
point_sets = st.integers(1, 14).flatmap(lambda n: arrays(np.float64, (n, 2), elements=coordinates))
sides = st.integers(2, 20).map(float)


@given(point_sets, sides, sides)
@settings(max_examples=60, deadline=None)
def test_no_rectangle_holds_more(points: np.ndarray, width: float, height: float) -> None:
    best = max(
        int(((points >= (x, y)) & (points <= (x + width, y + height))).all(axis=1).sum())
        for x, y in itertools.product(points[:, 0], points[:, 1])
    )
    shape = Shape(width, height, circle=False)
    found = find_windows(points, shape)[0]
    assert found.mitoses == best
    assert shape.holds(points, found.x_px, found.y_px).sum() >= best


@given(point_sets, sides, st.booleans())
@settings(max_examples=60, deadline=None)
def test_several_windows_do_not_overlap_and_fall_in_count(
    points: np.ndarray, side: float, circle: bool
) -> None:
    shape = Shape(side, side, circle)
    found = find_windows(points, shape, 4)
    for a, b in itertools.combinations(found, 2):
        assert shape.apart(np.array([[a.x_px, a.y_px]]), b.x_px, b.y_px).all()
    assert [w.mitoses for w in found] == sorted((w.mitoses for w in found), reverse=True)
    held = np.any([shape.holds(points, w.x_px, w.y_px) for w in found], axis=0)
    assert held.sum() >= sum(w.mitoses for w in found)


@given(point_sets, sides)
@settings(max_examples=40, deadline=None)
def test_the_second_circle_is_the_best_beside_the_first(points: np.ndarray, side: float) -> None:
    shape = Shape(side, side)
    found = find_windows(points, shape, 2)
    first = np.array([[found[0].x_px, found[0].y_px]])
    left = points[~shape.holds(points, *first[0])]
    axis = np.arange(-20, 61.0, 1.0)
    raster = (
        counts_at(left, Shape(side * (1 - 1e-9), side * (1 - 1e-9)), axis, axis)
        if len(left)
        else np.zeros((81, 81))
    )
    x, y = np.meshgrid(axis, axis)
    free = np.hypot(x - first[0, 0], y - first[0, 1]) >= side
    assert (found[1].mitoses if len(found) > 1 else 0) >= raster[free].max()


def half_a_slide() -> TissueRaster:
    """Tissue to the right of x = 400."""
    analysed = np.zeros((100, 100), bool)
    analysed[:, 50:] = True
    return TissueRaster(analysed, 8.0, 800, 800)


@pytest.mark.parametrize("circle", [True, False])
def test_a_window_held_to_tissue_leaves_mitoses_at_its_edge(circle: bool) -> None:
    points = np.array([[401.0, y] for y in (300.0, 310.0, 320.0)] + [[600.0, 300.0], [610.0, 300.0]])
    shape = Shape(100.0, 100.0, circle)
    free = find_windows(points, shape, 1, half_a_slide())[0]
    held = find_windows(points, shape, 1, half_a_slide(), 0.9)[0]
    assert (free.mitoses, held.mitoses) == (3, 3 if not circle else held.mitoses)
    assert held.tissue_fraction is not None
    assert held.tissue_fraction >= 0.9


def test_where_no_window_has_enough_tissue_the_one_with_the_most_is_taken() -> None:
    analysed = np.zeros((100, 100), bool)
    analysed[40:50, 40:50] = True
    found = find_windows(
        np.array([[350.0, 350.0]]), Shape(200.0, 200.0), 1, TissueRaster(analysed, 8.0, 800, 800), 0.9
    )[0]
    assert found.mitoses == 1
    assert 0.15 < (found.tissue_fraction or 0) < 0.9


def test_areas_of_shapes() -> None:
    circle, rectangle = circle_of(2.0, 0.25), rectangle_of(2.0, 0.25, 4 / 3)
    assert np.pi * (circle.radius_px * 0.25e-3) ** 2 == pytest.approx(2.0)
    assert rectangle.width_px * rectangle.height_px * 0.25e-3**2 == pytest.approx(2.0)
    assert rectangle.width_px / rectangle.height_px == pytest.approx(4 / 3)


def test_one_cluster_has_one_place_and_two_have_two() -> None:
    cluster = np.random.default_rng(0).normal(0, 30, (20, 2))
    shape = Shape(1000.0, 1000.0)
    for points, places in ((cluster, 1), (np.concatenate([cluster, cluster + 5000]), 2)):
        window = find_windows(points, shape)[0]
        found = stability_of(points, shape, window, 20, 0.25)
        assert found.places == places
        assert found.area_mm2 == pytest.approx(np.pi * 0.125**2 * places, rel=0.3)


def test_tiles_and_the_map_agree_with_the_density_they_were_drawn_from() -> None:
    rng = np.random.default_rng(1)
    raster = TissueRaster(np.ones((500, 500), bool), 32.0, 16_000, 16_000)
    points = rng.uniform(0, 16_000, (800, 2))
    tiles = tiles_of(points, raster, 4000.0, 0.25)
    assert tiles.sum(axis=0) == pytest.approx([800, 16.0])
    shape = circle_of(1.0, 0.25)
    found = density_map(points, raster, shape, 0.25)
    assert found.shape == (63, 63)
    assert np.median(found) == pytest.approx(50, rel=0.1)
    row, column = np.unravel_index(found[20:40, 20:40].argmax(), (20, 20))
    x, y = (column + 20.5) * 256, (row + 20.5) * 256
    assert found[row + 20, column + 20] == pytest.approx(shape.holds(points, x, y).sum(), rel=0.02)
