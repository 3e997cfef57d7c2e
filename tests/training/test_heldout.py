"""Sets that took no part in training are scored, tabled and drawn."""

from pathlib import Path

import minugan_training.paper.pictures
import pytest
import torch
from minugan_training.data.index import Entry
from minugan_training.evaluation.patches import PatchScore
from minugan_training.paper.charts import draw_charts
from minugan_training.paper.held_out import score_held_out
from minugan_training.paper.pictures import draw_pictures
from minugan_training.paper.tables import load_results, table_3
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment, Losses, Source, Validation

from tests.training.test_data import experiment, pool
from wsi_minugan.errors import DataError


def two_sets(tmp_path: Path, patient: str) -> Pool:
    """The drawn label map twice: as the set to train on, and as a set held out of a patient."""
    first = pool(tmp_path).entries[0]
    other = first.model_copy(update={"dataset": "other", "split": "test", "patient": patient, "scanner": "S"})
    return Pool(tmp_path, [first, Entry.model_validate(other.model_dump())])


def small() -> Experiment:
    only = (Source(datasets=("rgb",), at="mitoses", per_batch=1),)
    return experiment(sources=only, ngf=2, steps=2, log_every=1, losses=Losses(supervised=1.0))


@pytest.mark.slow
def test_held_out_sets_are_scored_and_drawn(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p, out = two_sets(tmp_path, "p9"), tmp_path / "results"
    done = score_held_out(small(), p, out / "t", ("other",), ("test",))
    assert {s.dataset for s in done.patches} == {"other"}
    found = load_results(out)
    assert found.heldout == {"t": done}
    rows = table_3(found.heldout["t"].patches)
    assert [(r["of"], r["name"]) for r in rows] == [
        ("data set", "other"),
        ("scanner", "S"),
        ("set, scanner", "other, S"),
    ]
    drawn = draw_charts(found, out) + draw_pictures(found, p, out, 1)
    assert [d.relative_to(out).as_posix() for d in drawn] == ["t/figure-5.png", "t/figure-10.png"]


@pytest.mark.slow
def test_a_region_is_drawn_as_itself_and_not_as_its_images_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = two_sets(tmp_path, "p9")
    whole = p.entries[1]
    x, y = p.mitosis_centres(1)[0]
    told = {"x_px": max(0, int(x) - 100), "y_px": max(0, int(y) - 100), "width_px": 150, "height_px": 150}
    p = Pool(tmp_path, [p.entries[0], whole.model_copy(update=told), whole.model_copy(update={"split": ""})])
    done = score_held_out(small(), p, tmp_path / "r" / "t", ("other",), ("test",))
    assert {s.region_px for s in done.patches} == {(told["x_px"], told["y_px"])}
    asked = []
    drawn = minugan_training.paper.pictures._patch
    monkeypatch.setattr(minugan_training.paper.pictures, "_patch", lambda *a: asked.append(a[1]) or drawn(*a))
    draw_pictures(load_results(tmp_path / "r"), p, tmp_path / "r", 1)
    assert asked == [1]


def test_a_patient_who_is_trained_on_cannot_be_held_out(tmp_path: Path) -> None:
    p = two_sets(tmp_path, "rgb-p1")
    with pytest.raises(DataError, match="rgb-p1"):
        score_held_out(small(), p, tmp_path / "results", ("other",), ("test",))


def test_a_patient_of_hard_negatives_cannot_be_held_out(tmp_path: Path) -> None:
    p = two_sets(tmp_path, "p9")
    fields = p.entries[1].model_copy(update={"dataset": "fields", "split": "train", "mitoses": "absent"})
    p = Pool(tmp_path, [*p.entries, fields])
    sources = (*small().sources, Source(datasets=("fields",), at="hard", per_batch=1))
    with pytest.raises(DataError, match="p9"):
        score_held_out(
            small().model_copy(update={"sources": sources}), p, tmp_path / "r", ("other",), ("test",)
        )


def test_images_that_say_when_to_stop_cannot_be_held_out(tmp_path: Path) -> None:
    p = two_sets(tmp_path, "p9")
    p = Pool(tmp_path, [p.entries[0], p.entries[1].model_copy(update={"dataset": "rgb", "split": "val"})])
    stops = small().model_copy(update={"validation": Validation(every_steps=1)})
    with pytest.raises(DataError, match="validate on"):
        score_held_out(stops, p, tmp_path / "r", ("rgb",), ("val",))


def test_the_f1_of_a_table_has_an_interval_by_patient_or_by_image() -> None:
    def score(patient: str, image: str, fp: int) -> PatchScore:
        return PatchScore(
            fold=0, dataset="d", scanner="s", patient=patient, image=image, x_px=0, y_px=0,
            dice_mitoses=None, dice_nuclei=None, tp=1, fp=fp, fn=0,
        )  # fmt: skip

    patients = table_3([score("p", "a", 0), score("p", "b", 1), score("q", "c", 4)])[0]
    assert (patients["by"], patients["f1"]) == ("patient", 0.545)
    assert patients["f1_low"] == 0.333
    images = table_3([score("p", "a", 0), score("p", "b", 2)])[0]
    assert (images["by"], images["f1_low"], images["f1_high"]) == ("image", 0.5, 1.0)
    one = table_3([score("p", "a", 0)])[0]
    assert (one["f1"], one["f1_low"]) == (1.0, None)


def test_the_papers_second_set_has_a_row_for_each_scanner() -> None:
    def score(dataset: str, scanner: str, tp: int) -> PatchScore:
        return PatchScore(
            fold=0, dataset=dataset, scanner=scanner, patient=f"{dataset}-1", image="a", x_px=0, y_px=0,
            dice_mitoses=None, dice_nuclei=None, tp=tp, fp=0, fn=1,
        )  # fmt: skip

    patches = [
        score("icpr14", "Aperio", 1),
        score("icpr14", "Hamamatsu", 3),
        score("mitos14", "Hamamatsu", 0),
    ]
    rows = {r["name"]: r["f1"] for r in table_3(patches) if r["of"] == "set, scanner"}
    assert rows == {
        "icpr14 (ICPR14), Aperio": 0.667,
        "icpr14 (ICPR14), Hamamatsu": 0.857,
        "mitos14 (ICPR14), Hamamatsu": 0.0,
    }
