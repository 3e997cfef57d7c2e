"""Every command of the training guide, and of the page of the paper's experiments, runs as written: on drawn data, in few steps."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from minugan_training.cli.main import app

from tests.test_docs import ROOT, commands
from tests.training.test_classification import write_published_weights
from tests.training.test_data import published, write
from tests.training.test_importers import tissue
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.classifier import EfficientClassifier
from wsi_minugan.slides.synthetic import SyntheticSlide


def drawn(seed: int, side: int, mitoses: int) -> tuple[np.ndarray, np.ndarray]:
    return SyntheticSlide(side, side, seed=seed, mitoses=mitoses, tissue_fraction=0.8).draw_with_classes(
        Box(0, 0, side, side)
    )


def write_crops(folder: Path) -> None:
    """Write AMi-Br's crops, each with a drawn mitosis."""
    drawing = SyntheticSlide(640, 640, seed=5, mitoses=4, tissue_fraction=0.8)
    rows = []
    for k, split in enumerate(("train", "val", "test")):
        x, y = (int(v) for v in drawing.mitoses_xy_px[k])
        left, top = (min(max(0, v - 64), 512) for v in (x, y))
        name = f"images/MIDOG21_{k}.jpg"
        write(folder / name, drawing.draw(Box(top, left, 128, 128)))
        rows.append(f"{name},MIDOG21,{60 + k:03}.tiff,{split},{x},{y},0,{x - left} {y - top},2/3")
    header = "file,dataset,slide,split,slide_x_px,slide_y_px,atypical,mitoses_px,votes"
    (folder / "crops.csv").write_text("\n".join([header, *rows]) + "\n")


def write_fields(root: Path) -> None:
    """Write a field of each of ICPR 2012's slides, with three mitoses, and one whose mitoses are painted over."""
    for k in range(3):
        image, classes = drawn(k, 640, 3)
        field, mitoses = tissue(2084, 2084), np.zeros((2084, 2084), np.uint16)
        field[:640, :640] = image
        mitoses[:640, :640] = cv2.connectedComponents((classes == 2).astype(np.uint8))[1]
        write(root / "icpr12" / "images" / f"A0{k}_01.jpg", field)
        write(root / "icpr12" / "mitoses" / f"A0{k}_01.png", mitoses)
    (root / "icpr12" / "mitoses.csv").write_text("hpf,mitosis,x_px,y_px,area_px\n")
    unmarked = root / "icpr12_unmarked"
    write(unmarked / "images" / "H02_03.jpg", np.tile(drawn(7, 320, 0)[0], (8, 8, 1))[:2250, :2252])
    write(unmarked / "unknown" / "H02_03.png", np.zeros((2250, 2252), np.uint8))
    (unmarked / "fields.csv").write_text(
        "field,scanner,slide,width_px,height_px\nH02_03,Hamamatsu,H02,2252,2250\n"
    )


def write_nuclei(folder: Path) -> None:
    lines = ["image,split,label,nuclei"]
    for k, split in enumerate(("train", "test")):
        image, classes = drawn(20 + k, 1000, 0)
        name = f"TCGA-18-559{k}-01Z-00-DX1"
        write(folder / "images" / f"{name}.jpg", image)
        nuclei = cv2.connectedComponents((classes == 1).astype(np.uint8))[1].astype(np.uint16)
        write(folder / "instances" / f"{name}.png", nuclei)
        lines.append(f"{name},{split},instances,1")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")


def write_frames(root: Path) -> None:
    """Write frames of MITOS-ATYPIA-14 and fields of MiDeSeC with three mitoses each; the frames have a look-alike, too."""
    frames, labels = ["frame,file,slide,split,width_px,height_px"], ["frame,kind,x_px,y_px,agreement"]
    fields, outlines = ["field,file,group,split,width_px,height_px"], ["field,mitosis,polygon_xy_px"]
    for k, split in enumerate(("train", "val")):
        image = drawn(40 + k, 640, 3)[0]
        places = SyntheticSlide(640, 640, seed=40 + k, mitoses=3, tissue_fraction=0.8).mitoses_xy_px
        write(root / "mitos14" / "images" / f"H0{k}_00Aa.jpg", image)
        frames.append(f"H0{k}_00Aa,images/H0{k}_00Aa.jpg,0{k},{split},640,640")
        labels += [f"H0{k}_00Aa,mitosis,{x:.0f},{y:.0f},1" for x, y in places]
        labels.append(f"H0{k}_00Aa,look_alike,30,40,0.2")
        write(root / "midesec" / "images" / f"P0{k}.jpg", image)
        fields.append(f"P0{k},images/P0{k}.jpg,g0{k},{split},640,640")
        for n, (x, y) in enumerate(places):
            corners = ((x - 9, y - 9), (x + 9, y - 9), (x + 9, y + 9), (x - 9, y + 9))
            outlines.append(f"P0{k},{n}," + " ".join(f"{a:.0f} {b:.0f}" for a, b in corners))
    for name, lines in (("frames", frames), ("labels", labels)):
        (root / "mitos14" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for name, lines in (("fields", fields), ("mitoses", outlines)):
        (root / "midesec" / f"{name}.csv").write_text("\n".join(lines) + "\n")


def write_nuclei_sets(folder: Path) -> None:
    """Write an image of each of the sets of nuclei that lie in one folder."""
    lines = ["image,set,patient,split,mpp,width_px,height_px,nuclei,mitoses"]
    (folder / "unknown").mkdir(parents=True)
    for k, (name, mitoses) in enumerate((("tnbc", "unknown"), ("consep", "absent"), ("benign", "absent"))):
        image, classes = drawn(60 + k, 512, 0)
        write(folder / "images" / f"{name}_1.jpg", image)
        nuclei = cv2.connectedComponents((classes == 1).astype(np.uint8))[1].astype(np.uint16)
        write(folder / "instances" / f"{name}_1.png", nuclei)
        lines.append(f"{name}_1,{name},{name}-1,train,0.25,512,512,1,{mitoses}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")


def write_sets(root: Path) -> None:
    """Write the guide's several sets: label maps of five patients, and what is held out."""
    maps = root / "tupac16-maps"
    published("rgb", maps)
    for k in range(11, 16):
        for folder in ("images", "labels"):
            (maps / folder / f"{k}_0.png").write_bytes((maps / folder / "p1_0.png").read_bytes())
    for folder in ("images", "labels"):
        (maps / folder / "p1_0.png").unlink()
    published("tupac16", root / "tupac16-held-out")
    for kind in ("icpr12", "icpr14"):
        published(kind, root / kind)


def write_small_experiments(folder: Path) -> None:
    """Write the project's experiments, narrow and of two steps."""
    folder.mkdir(parents=True)
    for path in (ROOT / "training" / "experiments").glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8")) | {"ngf": 2, "patch_px": 64, "steps": 2}
        if "consistency" in content:
            content["consistency"]["shift_px"] = 8
        (folder / path.name).write_text(yaml.safe_dump(content))
    for path in (ROOT / "training" / "experiments" / "second-stage").glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8")) | {"batch": 4, "steps": 2}
        (folder / "second-stage").mkdir(exist_ok=True)
        (folder / "second-stage" / path.name).write_text(yaml.safe_dump(content))


def write_cards(folder: Path) -> None:
    """Write the project's cards without views: a network of two steps sees a candidate in each patch, and would see all four times."""
    folder.mkdir(parents=True)
    for path in (ROOT / "training" / "cards").glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        content.pop("test_time_augmentation", None)
        (folder / path.name).write_text(yaml.safe_dump(content))


def write_review(folder: Path) -> None:
    """Write a review with one place that was rejected and one that was added."""
    image = drawn(70, 384, 1)[0]
    (x, y), *_ = SyntheticSlide(384, 384, seed=70, mitoses=1, tissue_fraction=0.8).mitoses_xy_px
    write(folder / "crops" / "0-0.png", image)
    columns = (
        "dataset,image,width_px,height_px,mpp,patient,mitoses,mitoses_kind,mitoses_truth,look_alikes,nuclei"
    )
    row = f"review,crops/0-0.png,384,384,0.25,slide,known,points,{x:.1f} {y:.1f},40 40,unknown"
    (folder / "index.csv").write_text(f"{columns}\n{row}\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_training_command_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    project, data = tmp_path / "project", tmp_path / "shared" / "data"
    write_crops(data / "amibr")
    write_fields(data)
    write_frames(data)
    write_nuclei(data / "monuseg")
    write_nuclei_sets(data / "nuclei")
    write_sets(project / "sets")
    write_review(project / "OUT" / "SLIDE" / "reviews" / "ann")
    write_small_experiments(project / "training" / "experiments")
    write_cards(project / "training" / "cards")
    write_published_weights(project / "efficientnet-lite0-57934424.pth", EfficientClassifier())
    monkeypatch.chdir(project)
    pages = (ROOT / "training" / "README.md", ROOT / "docs" / "reproduction.md")
    lines = [line for page in pages for line in commands(page, "minugan-train")]
    assert len(lines) > 18
    for line in lines:
        call = re.sub(r"--steps \d+", "--steps 2", line).split()[1:]
        if call[0] == "candidates":  # a network of two steps sees one at each pixel
            call += ["--least-score", "0.95"]
        done = CliRunner().invoke(app, call)
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception}"
    assert (project / "bundle" / "card.json").is_file()
    assert (project / "adapted" / "card.json").is_file()
    assert (project / "results" / "table2-d3-g2" / "figure-10.png").is_file()
    assert (project / "repro" / "figure-7.png").is_file()
