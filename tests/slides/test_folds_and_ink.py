"""Tissue in folds and in ink: found, told, and not where tissue is merely dense."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsi_minugan.config import RunSettings
from wsi_minugan.geometry import Box, analysis_frame
from wsi_minugan.pipeline.plan import open_reader, plan_slide
from wsi_minugan.slides.checks.stains import folds_in, inked_tissue
from wsi_minugan.slides.checks.survey import Artefacts
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide
from wsi_minugan.slides.tissue import ink_of, tissue_of

SIDE, CELL = 2560, 32


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Return drawn tissue at full resolution."""
    return SyntheticSlide(SIDE, SIDE, seed=3, mitoses=4).draw(Box(0, 0, SIDE, SIDE))


def small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (SIDE // CELL, SIDE // CELL), interpolation=cv2.INTER_AREA)


def folded(image: np.ndarray, left: int, right: int) -> np.ndarray:
    """Lay tissue over its own mirror image in a band, as a fold does: transmittances multiply."""
    out = image.astype(np.float32)
    glass = float(np.percentile(image, 99))
    band = (slice(600, 1900), slice(left, right))
    out[band] = out[band] * out[::-1][band] / glass
    return out.astype(np.uint8)


def inked(image: np.ndarray, width: int) -> np.ndarray:
    """Draw a line of green marker across the tissue."""
    return cv2.line(image.copy(), (0, SIDE // 2), (SIDE, SIDE // 2 + 200), (20, 120, 60), width)


def artefacts(image: np.ndarray) -> Artefacts:
    picture = small(image)
    plain, ink = ink_of(picture)
    tissue = tissue_of(picture)
    return Artefacts(folds_in(plain, tissue), inked_tissue(ink, tissue))


def test_plain_tissue_has_neither(drawn: np.ndarray) -> None:
    found = artefacts(drawn)
    assert not found.folded.any()
    assert not found.inked.any()
    assert found.sentences(64e-6, 1.0) == ()


def test_a_fold_is_found_where_it_is(drawn: np.ndarray) -> None:
    found = artefacts(folded(drawn, 1250, 1490)).folded
    expected = np.zeros_like(found)
    expected[600 // CELL : 1900 // CELL, 1250 // CELL : 1490 // CELL] = True
    assert found[expected].mean() > 0.5
    assert found[~expected].mean() < 0.01
    (sentence,) = Artefacts(found, np.zeros_like(found)).sentences(64e-6, 0.3)
    assert sentence.startswith("Tissue in folds: about 0.0")
    assert "%" in sentence


def test_ink_across_tissue_is_told_with_what_it_covers(drawn: np.ndarray) -> None:
    found = artefacts(inked(drawn, 300))
    covered = 300 * 0.7 * SIDE / CELL**2  # most of the drawing is tissue
    assert 0.5 * covered < found.inked.sum() < 2.5 * covered
    assert not found.folded[found.inked].any()
    assert "Tissue in ink" in " ".join(found.sentences(64e-6, 0.3))


def test_ink_beside_the_tissue_is_not_told(drawn: np.ndarray) -> None:
    glass = np.full((SIDE, 2 * SIDE, 3), 240, np.uint8)
    glass[:, :SIDE] = drawn
    cv2.line(glass, (int(1.6 * SIDE), 0), (int(1.7 * SIDE), SIDE), (20, 120, 60), 200)
    picture = cv2.resize(glass, (2 * SIDE // CELL, SIDE // CELL), interpolation=cv2.INTER_AREA)
    _, ink = ink_of(picture)
    assert ink.any()
    assert not inked_tissue(ink, tissue_of(picture)).any()


def test_the_plan_tells_of_a_fold_and_not_outside_of_the_region(tmp_path: Path, drawn: np.ndarray) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(
        path, folded(drawn, 1250, 1490), tile=(256, 256), photometric="rgb", resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert analysis_frame(SIDE, SIDE, 0.25, 0.25).scale == 1
    ring = [[0, 0], [900, 0], [900, 2500], [0, 2500], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "r.geojson").write_text(json.dumps(feature))
    for settings, told in ((RunSettings(), True), (RunSettings(region=tmp_path / "r.geojson"), False)):
        reader = open_reader(path, settings)
        plan = plan_slide(SlideInput("a", path), reader, settings, 0.25)
        reader.close()
        assert any("Tissue in folds" in w for w in plan.warnings) is told
