"""The hot spot enlarged and the gallery show the mitoses where they are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs import closeups
from wsi_minugan.outputs.geojson import HOTSPOT, PEAK, circle, rectangle
from wsi_minugan.outputs.objects import read_objects
from wsi_minugan.pipeline.closeups import draw_closeups
from wsi_minugan.pipeline.plan import open_reader
from wsi_minugan.slides.synthetic import SyntheticSlide


def rgb(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def near(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour).max(axis=2) < 70).nonzero()


@pytest.mark.parametrize("shape", ["circle", "rectangle"])
def test_the_hot_spot_shows_its_mitoses_outlined_and_the_gallery_all(
    tmp_path: Path, slide: Path, drawing: SyntheticSlide, shape: str
) -> None:
    places = drawing.mitoses_xy_px
    shapes = np.array([circle(x, y, 30) for x, y in places], object)
    spot = circle(*places[0], 300) if shape == "circle" else rectangle(*places[0], 600, 450)
    reader = open_reader(slide, RunSettings())
    draw_closeups(reader, 0.25, shapes, np.linspace(1, 0.5, len(places)), spot, tmp_path)
    reader.close()
    picture = rgb(tmp_path / "hotspot.jpg")
    left, top = np.maximum(0, np.floor(np.array(spot.bounds[:2]) - 0.025 * 600))
    ys, xs = near(picture, closeups.OUTLINE)
    found = shapely.distance(shapely.points(xs + left, ys + top)[:, None], shapes[None])
    assert found.min(axis=1).max() < 12
    inside = shapely.dwithin(shapely.points(places), spot, 1.0)
    assert 1 <= inside.sum() < len(places)
    marked = (found < 12).any(axis=0)
    assert marked[inside].all()
    columns = min(closeups.COLUMNS, len(places))
    rows = -(-len(places) // columns)
    side = closeups.TILE_PX + 4
    assert rgb(tmp_path / "gallery.jpg").shape == (rows * side - 4, columns * side - 4, 3)


def test_a_slide_without_mitoses_has_neither_picture(tmp_path: Path, slide: Path) -> None:
    reader = open_reader(slide, RunSettings())
    draw_closeups(reader, 0.25, np.zeros(0, object), np.zeros(0), None, tmp_path)
    reader.close()
    assert list(tmp_path.iterdir()) == []


def test_the_gallery_gives_the_scores_that_mitoses_are_counted_by(
    tmp_path: Path, slide: Path, finished: Path
) -> None:
    folder = finished / "synthetic slide"
    found = read_objects(folder / "mitoses.geojson")
    spot = next(o.shape for o in found if o.label == HOTSPOT)
    mitoses = [o for o in found if o.counts]
    reader = open_reader(slide, RunSettings())
    for name in (PEAK, "Mean score"):
        scores = np.array([m.measurements[name] for m in mitoses])
        (tmp_path / name).mkdir()
        draw_closeups(
            reader, 0.25, np.array([m.shape for m in mitoses], object), scores, spot, tmp_path / name
        )
    reader.close()
    drawn = (folder / "gallery.jpg").read_bytes()
    assert drawn == (tmp_path / PEAK / "gallery.jpg").read_bytes()
    assert drawn != (tmp_path / "Mean score" / "gallery.jpg").read_bytes()
