"""What counts as found on a patch, and which truths an overlap is measured against."""

from pathlib import Path

import numpy as np
import pytest
import torch
from minugan_training.data.index import Entry
from minugan_training.data.labels import MITOSES, NUCLEI
from minugan_training.evaluation import patches
from minugan_training.evaluation.patches import score_patches
from minugan_training.importing.importers import import_data
from minugan_training.paper.cross_validation import patches_of
from minugan_training.paper.tables import table_3
from minugan_training.sampling.placing import WHOLE_PX
from minugan_training.sampling.pool import Pool

from tests.training.test_data import DRAWING, experiment, pool, published

SIZE_PX = 128


def perfect(monkeypatch: pytest.MonkeyPatch, p: Pool, index: int, place: tuple[float, float]) -> None:
    """Have the network find exactly what is labelled in a patch."""
    sample = p.sample(index)
    left, top = (round(v - SIZE_PX / 2) for v in place)
    part = np.s_[top : top + SIZE_PX, left : left + SIZE_PX]
    mitosis, nucleus = (sample.labels[part][..., c] == 1 for c in (MITOSES, NUCLEI))
    classes = np.where(mitosis, 2, nucleus).astype(np.uint8)
    monkeypatch.setattr(patches, "classes_of", lambda *_: classes)


def scored(p: Pool, place: tuple[float, float]) -> patches.PatchScore:
    settings = experiment(patch_px=SIZE_PX)
    return score_patches(torch.nn.Identity(), settings, p, [(0, *place)], 0)[0]


def test_a_perfect_prediction_of_a_label_map_scores_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = pool(tmp_path)
    x, y = (float(round(v)) for v in DRAWING.mitoses_xy_px[0])
    perfect(monkeypatch, p, 0, (x, y))
    row = scored(p, (x, y))
    assert (row.dice_mitoses, row.dice_nuclei) == (1.0, 1.0)
    assert (row.fp, row.fn) == (0, 0)
    assert row.tp >= 1


def test_an_outline_made_from_a_centre_is_no_truth_to_measure_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published("tupac16", tmp_path)
    p = Pool(tmp_path, import_data("tupac16", tmp_path))
    x, y = (float(round(v)) for v in DRAWING.mitoses_xy_px[0])
    perfect(monkeypatch, p, 0, (x, y))
    row = scored(p, (x, y))
    assert row.dice_mitoses is None
    assert row.tp >= 1


def test_the_f1_of_painting_everything_stands_beside_that_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = pool(tmp_path)
    p._centres[0] = np.array([[100.0, 100.0]])
    monkeypatch.setattr(patches, "classes_of", lambda *_: np.zeros((SIZE_PX, SIZE_PX), np.uint8))
    middle, aside = scored(p, (100.0, 100.0)), scored(p, (100.0, 140.0))
    assert (middle.tp, middle.painted_tp) == (0, 1)
    assert (aside.tp, aside.painted_tp) == (0, 0)
    row = table_3([middle, aside])[0]
    assert (row["f1"], row["f1_painted"]) == (0.0, 0.5)
    assert table_3([middle.model_copy(update={"painted_tp": None})])[0]["f1_painted"] is None


def test_a_mitosis_in_two_pieces_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published("icpr12", tmp_path)
    (tmp_path / "A00_01.csv").write_text("100,100,101,100,100,101,101,101,108,100,109,100,108,101,109,101\n")
    p = Pool(tmp_path, import_data("icpr12", tmp_path))
    assert p.mitosis_centres(0).tolist() == [[104.5, 100.5]]
    whole = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    whole[60:70, 60:72] = 2
    monkeypatch.setattr(patches, "classes_of", lambda *_: whole)
    row = scored(p, (104.0, 100.0))
    assert (row.tp, row.fp, row.fn) == (1, 0, 0)


def test_a_mitosis_whose_centre_lies_outside_is_neither_missed_nor_false(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = pool(tmp_path)
    p._centres[0] = np.array([[100.0, 100.0], [170.0, 100.0]])
    nothing = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    at_the_edge = nothing.copy()
    at_the_edge[60:70, 118:128] = 2
    for classes, expected in ((nothing, (0, 0, 1)), (at_the_edge, (0, 0, 1))):
        monkeypatch.setattr(patches, "classes_of", lambda *_, c=classes: c)
        row = scored(p, (100.0, 100.0))
        assert (row.tp, row.fp, row.fn) == expected


def test_patches_to_score_hold_their_mitosis_whole_but_not_in_their_middle() -> None:
    entries = [
        Entry(
            dataset="rgb", image=f"{k}.png", width_px=2000, height_px=2000, mpp=0.25, patient=str(k), scanner="s",
            split="train", mitoses="known", mitoses_kind="points", mitoses_truth="1000 1000", nuclei="unknown",
        )
        for k in range(40)
    ]  # fmt: skip
    p = Pool(Path(), entries)
    blank = np.zeros((2000, 2000, 3), np.uint8)
    p._samples.update({k: patches.Sample(blank, blank, 0.25) for k in range(40)})
    settings = experiment(patch_px=256)
    places = patches_of(p, settings, settings.sources)
    away = np.abs(np.array([(x, y) for _, x, y in places]) - 999.5)
    assert away.max() <= 128 - WHOLE_PX
    assert away.mean() > 30
    assert places == patches_of(p, settings, settings.sources)
