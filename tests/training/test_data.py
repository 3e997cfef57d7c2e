"""Every importer on a tiny copy of the published layout; checks; weak outlines; batches."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from minugan_training.data.check import problems_of
from minugan_training.data.index import Entry, read_index, write_index
from minugan_training.data.labels import BOUNDARY, IGNORE, MITOSES, NUCLEI, load_sample, mitosis_truth
from minugan_training.data.weak_labels import weak_outlines
from minugan_training.evaluation.metrics import dice
from minugan_training.evaluation.weak_scores import outline_scores
from minugan_training.importing.importers import IMPORTERS, import_data
from minugan_training.importing.layouts import import_folder
from minugan_training.sampling.pool import Pool, dark_places
from minugan_training.sampling.sampler import Sampler
from minugan_training.settings import Augmentation, Experiment, Source

from wsi_minugan.errors import DataError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.synthetic import SyntheticSlide

DRAWING = SyntheticSlide(320, 320, seed=4, mitoses=2, tissue_fraction=0.75)


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, classes = DRAWING.draw_with_classes(Box(0, 0, 320, 320))
    return image, classes, DRAWING.mitoses_xy_px


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".tif", ".tiff"}:
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def published(kind: str, root: Path) -> None:
    """Write one image in a published layout."""
    image, classes, points = drawn()
    if kind == "tupac16":
        write(root / "03" / "07.tif", image)
        (root / "03" / "07.csv").write_text("".join(f"{y:.0f},{x:.0f}\n" for x, y in points))
    elif kind == "icpr12":
        write(root / "A00_01.bmp", image)
        labels = cv2.connectedComponents((classes == 2).astype(np.uint8))[1]
        lines = [
            ",".join(f"{x},{y}" for y, x in np.argwhere(labels == k)) for k in range(1, labels.max() + 1)
        ]
        (root / "A00_01.csv").write_text("\n".join(lines))
    elif kind == "icpr14":
        write(root / "A03" / "frames" / "x40" / "A03_00Aa.tiff", image)
        (root / "A03" / "mitosis").mkdir()
        rows = "".join(f"{x:.0f},{y:.0f},1.0\n" for x, y in points)
        (root / "A03" / "mitosis" / "A03_00Aa_mitosis.csv").write_text(rows)
    elif kind == "midog":
        write(root / "images" / "101.tiff", image)
        boxes = [
            {"image_id": 1, "category_id": 1, "bbox": [x - 25, y - 25, x + 25, y + 25]} for x, y in points
        ]
        boxes.append({"image_id": 1, "category_id": 2, "bbox": [0, 0, 50, 50]})
        table = {
            "images": [{"id": 1, "file_name": "101.tiff", "width": 320, "height": 320}],
            "annotations": boxes,
        }
        (root / "MIDOG.json").write_text(json.dumps(table))
    elif kind == "monuseg":
        write(root / "Tissue Images" / "TCGA-18-5592-01Z-00-DX1.tif", image)
        (root / "Annotations").mkdir()
        contours, _ = cv2.findContours(
            (classes == 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        regions = "".join(
            "<Region><Vertices>"
            + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in c[:, 0])
            + "</Vertices></Region>"
            for c in contours
            if len(c) > 5
        )
        xml = f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"
        (root / "Annotations" / "TCGA-18-5592-01Z-00-DX1.xml").write_text(xml)
    elif kind == "rgb":
        colours = np.zeros((*classes.shape, 3), np.uint8)
        colours[classes == 1, 0] = 255
        colours[classes == 2, 1] = 255
        write(root / "images" / "p1_0.png", image)
        write(root / "labels" / "p1_0.png", colours)


@pytest.mark.parametrize("kind", sorted(set(IMPORTERS) - {"shared"}))
def test_an_importer_reads_its_published_layout(kind: str, tmp_path: Path) -> None:
    published(kind, tmp_path)
    _, classes, points = drawn()
    entries = import_data(kind, tmp_path)
    assert len(entries) == 1
    assert problems_of(tmp_path, entries) == []
    sample = load_sample(tmp_path, entries[0])
    if kind == "monuseg":
        assert (sample.labels[..., MITOSES] != 1).all()
        assert dice(sample.labels[..., NUCLEI] == 1, classes == 1) > 0.8
    else:
        found = mitosis_truth(tmp_path, entries[0], sample)
        expected = points if kind != "icpr12" else found
        if kind != "rgb":
            assert np.abs(np.sort(found, axis=0) - np.sort(expected, axis=0)).max() < 2
        assert dice(sample.labels[..., MITOSES] == 1, classes == 2) > (
            0.5 if entries[0].mitoses_kind == "points" else 0.99
        )
    if kind == "rgb":
        assert dice(sample.labels[..., NUCLEI] == 1, classes == 1) > 0.99


@pytest.mark.parametrize("kind", sorted(set(IMPORTERS) - {"shared"}))
def test_a_folders_layout_is_told_by_what_lies_in_it(kind: str, tmp_path: Path) -> None:
    published(kind, tmp_path)
    assert import_folder(tmp_path) == (tmp_path, import_data(kind, tmp_path))


def test_a_folder_without_a_known_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no known layout"):
        import_folder(tmp_path)


def test_an_index_survives_a_round_trip(tmp_path: Path) -> None:
    published("midog", tmp_path)
    entries = import_data("midog", tmp_path)
    write_index(tmp_path / "index.csv", entries)
    assert read_index(tmp_path / "index.csv") == entries


def test_checks_find_what_is_wrong(tmp_path: Path) -> None:
    published("tupac16", tmp_path)
    good = import_data("tupac16", tmp_path)[0]
    bad = [
        good.model_copy(update={"image": "gone.tif"}),
        good.model_copy(update={"width_px": 999, "split": "val"}),
        good.model_copy(update={"mitoses_truth": "5000 1", "split": "train"}),
    ]
    text = " ".join(problems_of(tmp_path, bad))
    for words in ("missing", "the file has 320", "lies outside", "in the splits"):
        assert words in text


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="layout of tupac16"):
        import_data("tupac16", tmp_path)


def test_an_xml_with_entities_is_refused(tmp_path: Path) -> None:
    published("monuseg", tmp_path)
    path = next(tmp_path.rglob("*.xml"))
    path.write_text("<!DOCTYPE a [<!ENTITY b 'c'>]>" + path.read_text())
    with pytest.raises(DataError, match="entities"):
        load_sample(tmp_path, import_data("monuseg", tmp_path)[0])


def test_weak_outlines_cover_drawn_mitoses() -> None:
    image, classes, points = drawn()
    assert dice(weak_outlines(image, [tuple(p) for p in points]) > 0, classes == 2) > 0.5


def test_weak_outlines_are_measured_on_experts_outlines(tmp_path: Path) -> None:
    published("icpr12", tmp_path)
    entries = import_data("icpr12", tmp_path)
    scores = outline_scores(tmp_path, entries)[entries[0].split]
    assert len(scores) == len(mitosis_truth(tmp_path, entries[0], load_sample(tmp_path, entries[0])))
    assert all(0.3 < s <= 1 for s in scores)
    with pytest.raises(DataError, match="no outlines"):
        outline_scores(tmp_path, [entries[0].model_copy(update={"mitoses_kind": "points"})])


def pool(tmp_path: Path) -> Pool:
    published("rgb", tmp_path)
    entry = import_data("rgb", tmp_path)[0].model_copy(update={"split": "train", "mitoses_kind": "rgb"})
    return Pool(tmp_path, [Entry.model_validate(entry.model_dump())])


def experiment(**changes: object) -> Experiment:
    sources = (
        Source(datasets=("rgb",), at="mitoses", per_batch=2),
        Source(datasets=("rgb",), at="hard", per_batch=1),
        Source(datasets=("rgb",), at="anywhere", per_batch=1),
    )
    change = Augmentation(scale=(0.9, 1.1), shift_px=10, stain=0.8, blur=0.2, jpeg=0.2, sharpen=0.2)
    return Experiment(
        **({"name": "t", "sources": sources, "steps": 4, "patch_px": 64, "augmentation": change} | changes)
    )


def test_a_steps_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    p = pool(tmp_path)
    first, second = Sampler(p, experiment()), Sampler(p, experiment())
    second.batch(3)
    for a, b in zip(first.batch(7), second.batch(7), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.batch(7)[0], first.batch(8)[0])
    assert not np.array_equal(first.batch(7)[0], Sampler(p, experiment(seed=1)).batch(7)[0])


def test_patches_around_mitoses_hold_one(tmp_path: Path) -> None:
    images, labels, _ = Sampler(pool(tmp_path), experiment()).batch(0)
    assert images.shape == labels.shape == (4, 3, 64, 64)
    assert images.min() >= -1
    assert images.max() <= 1
    for k in (0, 1):
        assert (labels[k, MITOSES] == 1).any()
    assert set(np.unique(labels)) <= {0, 1, IGNORE}


def test_dark_places_are_no_mitoses(tmp_path: Path) -> None:
    p = pool(tmp_path)
    places = dark_places(p, experiment().sources[1], 20)
    assert places
    labels = p.sample(0).labels
    assert all(labels[int(y), int(x), MITOSES] == 0 for _, x, y in places)
    assert labels[..., BOUNDARY].max() <= 1
