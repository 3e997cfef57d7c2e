"""Slides unlike the training data are told by stain, focus or compression, and not by anything else."""

import cv2
import numpy as np
import pytest
from minugan_training.evaluation.sentinel import MADE, auroc

from wsi_minugan.errors import ModelError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import BUNDLED, find_bundle
from wsi_minugan.minugan.sentinel import (
    FIGURES,
    RANGE_FILE,
    TrainingRange,
    figures_of,
    load_range,
    range_of,
    slide_figures,
    strangeness,
    warnings_of,
)
from wsi_minugan.slides.synthetic import SyntheticSlide


def patches(seed: int, count: int = 4) -> list[np.ndarray]:
    """Return patches of drawn tissue; each seed has a stain of its own, a little."""
    drawing = SyntheticSlide(1400, 1400, seed=seed, mitoses=3, tissue_fraction=0.9)
    image = drawing.draw(Box(400, 400, 256, 256 * count))
    factor = 1 + 0.02 * np.random.default_rng(seed).standard_normal(3)
    noisy = image * factor + np.random.default_rng(seed).normal(0, 4, image.shape)
    noisy = cv2.GaussianBlur(np.clip(noisy, 0, 255).astype(np.uint8), (0, 0), 0.6)
    return [noisy[:, 256 * k : 256 * k + 256] for k in range(count)]


@pytest.fixture(scope="module")
def known() -> TrainingRange:
    return range_of([slide_figures(patches(seed)) for seed in range(10)], ["drawn tissue"])


def test_tissue_like_the_training_datas_is_no_cause_for_a_warning(known: TrainingRange) -> None:
    figures = slide_figures(patches(3))
    assert figures.keys() == FIGURES.keys()
    assert warnings_of(figures, known) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("blur, sigma 4 px", "less sharp"),
        ("JPEG, quality 15", "compressed more strongly"),
        ("green cast (red x 0.7)", "stain is unlike"),
        ("darker stain (density x 1.6)", "stain is unlike"),
    ],
)
def test_what_is_unlike_is_named(known: TrainingRange, change: str, words: str) -> None:
    kind, make = MADE[change]
    figures = slide_figures([make(p) for p in patches(3)])
    assert strangeness(figures, known)[kind] > 1
    assert any(words in w for w in warnings_of(figures, known))


def test_a_sharper_or_less_compressed_slide_is_no_cause_for_a_warning(known: TrainingRange) -> None:
    figures = slide_figures(patches(3))
    better = figures | {"fine_detail": 9.0, "medium_detail": 9.0, "block_edges": -9.0}
    assert warnings_of(better, known) == ()


def test_glass_has_no_figures() -> None:
    glass = np.full((256, 256, 3), 240, np.uint8)
    assert figures_of(glass) is None
    assert slide_figures([glass]) == {}
    assert slide_figures([]) == {}


def test_the_bundled_models_range_is_there_and_whole() -> None:
    known = load_range(find_bundle("default"))
    assert known is not None
    assert known.images >= 100
    assert strangeness({}, known) == {}


def test_a_model_without_a_range_compares_nothing_and_a_broken_one_is_told(tmp_path) -> None:
    assert load_range(tmp_path) is None
    for text in ("{", "[]", (BUNDLED / "default" / RANGE_FILE).read_text().replace('"images"', '"pictures"')):
        (tmp_path / RANGE_FILE).write_text(text)
        with pytest.raises(ModelError, match="cannot be read"):
            load_range(tmp_path)


def test_the_area_under_the_curve_is_the_chance_of_the_right_order() -> None:
    assert auroc([2, 3], [0, 1]) == 1
    assert auroc([1, 1], [1, 1]) == 0.5
    assert np.isnan(auroc([], [1]))
