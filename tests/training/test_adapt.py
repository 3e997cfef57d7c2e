"""`minugan-train adapt`: a second stage learns from reviews, and a guard set keeps its recall."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from minugan_training.classification.adapt import Adaptation, adapt, reviewed_candidates, write_adapted
from minugan_training.classification.candidates import LOOK_ALIKE, MITOSIS, Candidates, save_candidates
from minugan_training.cli.main import app
from minugan_training.data.index import Entry, write_index

from tests.minugan.test_second_stage import with_second_stage
from tests.training.test_classification import candidates
from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.minugan.bundle import Bundle, load_bundle

FEW = Adaptation(steps=30, batch=8, learning_rate=0.01, mixed_in=40, guards=12)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return a small model with two classifiers that nobody trained."""
    return with_second_stage(tmp_path / "model")


def of_colours(found: Candidates, mitosis: int, other: int) -> Candidates:
    """Return candidates whose crops tell mitoses by their brightness."""
    crops = found.crops.copy()
    crops[...] = np.where(found.kind == MITOSIS, mitosis, other)[:, None, None, None]
    return replace(found, crops=crops)


def review(folder: Path) -> Path:
    """Write a review's folder: a dark mitosis that was added, and a pale place that was rejected."""
    (folder / "crops").mkdir(parents=True)
    image = np.full((384, 384, 3), 200, np.uint8)
    for x, value in ((100, 30), (300, 160)):
        cv2.circle(image, (x, 192), 12, (value,) * 3, -1)
    cv2.imwrite(str(folder / "crops" / "0-0.png"), image)
    entry = Entry(
        dataset="review", image="crops/0-0.png", width_px=384, height_px=384, mpp=0.25, patient="slide",
        mitoses="known", mitoses_kind="points", mitoses_truth="100 192", look_alikes="300 192", nuclei="unknown",
    )  # fmt: skip
    write_index(folder / "index.csv", [entry])
    return folder


def test_what_was_added_and_rejected_is_learned_from(tmp_path: Path, bundle: Bundle) -> None:
    place = review(tmp_path / "ann")
    for named in (place, place / "index.csv"):
        found = reviewed_candidates([named], bundle)
        assert found.kind.tolist()[:2] == [MITOSIS, LOOK_ALIKE]
        assert set(found.patient.tolist()) == {"slide"}
    write_index(place / "index.csv", [])
    with pytest.raises(DataError, match="no images to learn from"):
        reviewed_candidates([place], bundle)


@pytest.mark.slow
def test_reviews_change_the_judgement_and_the_same_reviews_give_the_same_model(bundle: Bundle) -> None:
    data = of_colours(candidates(), 40, 220)
    made = [adapt(bundle, data, data, data, FEW) for _ in range(2)]
    before, after = made[0].reviewed
    assert after.found + after.refused > before.found + before.refused
    assert made[0].guard[1].recall >= made[0].guard[0].recall - FEW.most_lost
    assert made[0].strength == made[1].strength
    for a, b in zip(made[0].members, made[1].members, strict=True):
        assert all(bool((a[k] == b[k]).all()) for k in a)


@pytest.mark.slow
def test_a_guard_set_that_reviews_contradict_keeps_its_recall_or_nothing_is_written(bundle: Bundle) -> None:
    guard = of_colours(candidates(), 40, 220)
    known = adapt(bundle, guard, guard, guard, FEW)
    # Whoever calls every dark mitosis a look-alike teaches what the guard set forbids.
    wrong = of_colours(
        replace(guard, kind=np.full(48, LOOK_ALIKE, np.uint8), target=np.full(48, 0.1)), 40, 40
    )
    sure = replace(bundle, path=bundle.path.parent / "sure")
    write_adapted(bundle, known, "", sure.path)
    sure = load_bundle(sure.path)
    assert known.guard[1].recall > 0.5
    try:
        after = adapt(sure, wrong, wrong, guard, FEW.model_copy(update={"reviewed": 0.9}))
    except TrainingError as e:
        assert "Nothing was written" in str(e)
    else:
        assert after.strength < 1
        assert after.guard[1].recall >= after.guard[0].recall - FEW.most_lost


@pytest.mark.slow
def test_the_command_writes_a_bundle_that_claims_no_figures_of_the_old_model(
    tmp_path: Path, bundle: Bundle
) -> None:
    for name in ("train", "val"):
        save_candidates(tmp_path / "c" / f"{name}.npz", candidates())
    done = CliRunner().invoke(
        app,
        [
            *("adapt", str(review(tmp_path / "ann")), "--model", str(bundle.path)),
            *("--candidates", str(tmp_path / "c"), "--steps", "2", "--most-lost", "1"),
            *("-o", str(tmp_path / "adapted")),
        ],
    )
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    made = load_bundle(tmp_path / "adapted")
    assert made.card.name == f"{bundle.card.name}-adapted"
    assert (made.card.reliability, made.card.scores) == (None, {})
    assert made.card.training_data[-1].startswith("Adapted to reviews of 1 slides: 1 mitoses")
    assert made.card.weights_sha256 == bundle.card.weights_sha256
    assert made.digest != bundle.digest
    for words in ("Guard set:", "Reviews:", "of the change was taken"):
        assert words in done.output


@pytest.mark.slow
def test_a_model_is_never_overwritten_and_one_stage_cannot_be_adapted(bundle: Bundle) -> None:
    data = candidates()
    made = adapt(bundle, data, data, data, FEW.model_copy(update={"steps": 1, "most_lost": 1.0}))
    with pytest.raises(TrainingError, match="Name another folder"):
        write_adapted(bundle, made, "", bundle.path)
    with pytest.raises(TrainingError, match="no second stage"):
        adapt(bundle.first_stage_only(), data, data, data, FEW)
    without = replace(data, kind=np.full(48, LOOK_ALIKE, np.uint8))
    with pytest.raises(DataError, match="guards nothing"):
        adapt(bundle, data, data, without, FEW)
