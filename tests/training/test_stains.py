"""What training measures of stains: one for each patient and scanner, a target and a range for the card, and Macenko's rival."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from minugan_training.classification.adapt import reviewed_candidates
from minugan_training.data.index import Entry
from minugan_training.data.stain import by_slide, macenko_of, on_the_card, slide_maps, stains_of

from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import BUNDLED, load_bundle
from wsi_minugan.minugan.card import StainNormalisation
from wsi_minugan.minugan.scoring import restained
from wsi_minugan.minugan.stain import StainStatistics, slide_stain
from wsi_minugan.slides.synthetic import SyntheticSlide

SIDE = 1024


def denser(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image with all optical densities times a factor."""
    return np.clip(np.rint(256 * ((image + 1.0) / 256) ** factor - 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """Return images of three slides that differ in density alone."""
    root = tmp_path_factory.mktemp("data")
    image = SyntheticSlide(SIDE, SIDE, seed=3, mitoses=4, tissue_fraction=0.75).draw(Box(0, 0, SIDE, SIDE))
    entries = []
    for k, factor in enumerate((0.8, 1.0, 1.3)):
        name = f"{k}.png"
        cv2.imwrite(str(root / name), denser(image, factor)[..., ::-1])
        entries.append(
            Entry(
                dataset="drawn", image=name, width_px=SIDE, height_px=SIDE, mpp=0.25, patient=f"p{k}", scanner="s",
                split="train", mitoses="absent", nuclei="unknown",
            )
        )  # fmt: skip
    return root, entries


def test_the_cards_target_is_the_median_of_slides_and_its_range_holds_them_all(
    data: tuple[Path, list[Entry]],
) -> None:
    root, entries = data
    assert list(by_slide([*entries, entries[0]])) == [("p0", "s"), ("p1", "s"), ("p2", "s")]
    stains = stains_of(root, entries)
    card = on_the_card(stains)
    assert card.target == stains["p1", "s"]
    assert card.slides == 3
    for low, slide, high in zip(card.low.mean, stains["p0", "s"].mean, card.high.mean, strict=True):
        assert low <= slide <= high
    span = stains["p2", "s"].mean[0] - stains["p0", "s"].mean[0]
    assert card.high.mean[0] - card.low.mean[0] == pytest.approx(1.2 * span, abs=0.001)
    assert not card.switched_on
    with pytest.raises(DataError, match="no stain can be measured"):
        on_the_card({})


@pytest.mark.parametrize("method", ["mean and spread", "macenko"])
def test_slides_of_other_densities_get_those_of_the_target(
    method: str, data: tuple[Path, list[Entry]]
) -> None:
    root, entries = data
    maps = slide_maps(root, entries, entries, method)  # type: ignore[arg-type]
    images = [cv2.imread(str(root / e.image))[..., ::-1].copy() for e in entries]
    moved = [restained(torch.from_numpy(i), maps[f"p{k}", "s"]).numpy() for k, i in enumerate(images)]
    tissue = slice(300, 700), slice(300, 700)
    wanted = slide_stain([images[1][tissue]])
    assert wanted is not None
    for image in moved:
        found = slide_stain([image[tissue]])
        assert found is not None
        assert found.mean == pytest.approx(wanted.mean, abs=0.03)
        assert found.spread == pytest.approx(wanted.spread, abs=0.03)


def test_a_model_that_sees_other_stains_than_reviews_show_is_not_adapted() -> None:
    bundle = load_bundle(BUNDLED / "default")
    stain = StainStatistics(mean=(0.4, 0.2, 0.1), spread=(0.2, 0.1, 0.1))
    known = StainNormalisation(target=stain, low=stain, high=stain, slides=1, switched_on=True)
    moved = replace(bundle, card=bundle.card.model_copy(update={"stain": known}))
    with pytest.raises(TrainingError, match="normalised stain"):
        reviewed_candidates([], moved)


def test_macenkos_stains_are_those_that_were_drawn(data: tuple[Path, list[Entry]]) -> None:
    root, entries = data
    found = macenko_of([cv2.imread(str(root / entries[1].image))[..., ::-1]])
    assert found is not None
    haematoxylin, eosin = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert haematoxylin @ [0.65, 0.70, 0.29] > 0.98
    assert eosin @ np.array([0.20, 0.80, 0.35]) / np.linalg.norm([0.20, 0.80, 0.35]) > 0.98
    assert macenko_of([np.full((256, 256, 3), 250, np.uint8)]) is None
