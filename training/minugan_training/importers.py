"""From the published layouts of data sets to the index; design.md, Files of other people's formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import tifffile

from minugan_training.index import Entry, TruthKind, points_text
from wsi_minugan.errors import DataError

MPP_40X = 0.25
ICPR12_MPP = {"A": 0.2456, "H": 0.2273}
_IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    try:
        if path.suffix.lower() in {".tif", ".tiff"}:
            with tifffile.TiffFile(path) as tif:
                page: Any = tif.pages.first
                return int(page.imagewidth), int(page.imagelength)
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as e:
        raise DataError(f"The image {path} cannot be read: {e}.") from e
    if picture is None:
        raise DataError(f"The image {path} cannot be read. Copy it again.")
    return int(picture.shape[1]), int(picture.shape[0])


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            return list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"The table {path} cannot be read: {e}.") from e


def _numbers(path: Path) -> Iterator[list[float]]:
    try:
        for line in path.read_text("utf-8").splitlines():
            if line.strip():
                yield [float(v) for v in line.replace(";", ",").split(",") if v.strip()]
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGES)


def import_tupac16(root: Path) -> list[Entry]:
    """TUPAC16's auxiliary set: ``NN/MM.tif`` and ``NN/MM.csv`` of lines ``row,column``."""
    entries = []
    for image in (p for p in _images(root) if p.parent.name.isdigit()):
        truth = next(
            (
                p
                for p in (image.with_suffix(".csv"), root / "truth" / image.parent.name / f"{image.stem}.csv")
                if p.is_file()
            ),
            None,
        )
        points = [(v[1], v[0]) for v in _numbers(truth)] if truth else []
        w, h = image_size(image)
        entries.append(
            Entry(
                dataset="tupac16", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
                patient=f"tupac16-{image.parent.name}", scanner="Aperio" if int(image.parent.name) <= 23 else "Leica",
                mitoses="known" if points else "absent", mitoses_kind="points", mitoses_truth=points_text(points),
                nuclei="unknown",
            )
        )  # fmt: skip
    return entries


def import_icpr12(root: Path) -> list[Entry]:
    """ICPR 2012: ``A00_01.bmp`` and ``A00_01.csv``, a line of ``x,y,x,y,…`` for each mitosis."""
    entries = []
    for image in (p for p in _images(root) if p.stem[:1] in ICPR12_MPP and "_" in p.stem):
        truth = image.with_suffix(".csv")
        w, h = image_size(image)
        there = truth.is_file() and truth.stat().st_size > 0
        entries.append(
            Entry(
                dataset="icpr12", image=image.relative_to(root).as_posix(), width_px=w, height_px=h,
                mpp=ICPR12_MPP[image.stem[0]], patient=f"icpr12-{image.stem[1:3]}",
                scanner="Aperio" if image.stem[0] == "A" else "Hamamatsu", mitoses="known" if there else "absent",
                mitoses_kind="pixel-lists" if there else "",
                mitoses_truth=truth.relative_to(root).as_posix() if there else "", nuclei="unknown",
            )
        )  # fmt: skip
    return entries


def import_icpr14(root: Path) -> list[Entry]:
    """ICPR 2014 (MITOS-ATYPIA): ``A03/frames/x40/A03_00Aa.tiff``, ``A03/mitosis/A03_00Aa_mitosis.csv`` of ``x,y,confidence``."""
    entries = []
    for image in sorted(root.glob("*/frames/x40/*.tif*")):
        case = image.parents[2]
        truth = case / "mitosis" / f"{image.stem}_mitosis.csv"
        points = [(v[0], v[1]) for v in _numbers(truth)] if truth.is_file() else []
        w, h = image_size(image)
        entries.append(
            Entry(
                dataset="icpr14", image=image.relative_to(root).as_posix(), width_px=w, height_px=h,
                mpp=ICPR12_MPP.get(case.name[0], MPP_40X), patient=f"icpr14-{case.name[1:]}",
                scanner="Aperio" if case.name[0] == "A" else "Hamamatsu", mitoses="known" if points else "absent",
                mitoses_kind="points", mitoses_truth=points_text(points), nuclei="unknown",
            )
        )  # fmt: skip
    return entries


def import_midog(root: Path) -> list[Entry]:
    """MIDOG: a COCO-like JSON beside the images; ``bbox`` is [x0, y0, x1, y1], category 1 the mitotic figures."""
    tables = sorted(root.glob("*.json"))
    if not tables:
        raise DataError(f"There is no MIDOG JSON in {root}.")
    try:
        content = json.loads(tables[0].read_text("utf-8"))
        found: dict[int, list[tuple[float, float]]] = {}
        for a in content["annotations"]:
            if a["category_id"] == 1:
                x0, y0, x1, y1 = a["bbox"]
                found.setdefault(a["image_id"], []).append(((x0 + x1) / 2, (y0 + y1) / 2))
        labelled = {a["image_id"] for a in content["annotations"]}
        return [_midog_entry(root, i, found.get(i["id"], []), i["id"] in labelled) for i in content["images"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{tables[0]} is not a MIDOG table: {e!r}.") from e


def _midog_entry(
    root: Path, image: dict[str, Any], points: list[tuple[float, float]], labelled: bool
) -> Entry:
    name = image["file_name"]
    path = next((p for p in (root / name, root / "images" / name) if p.is_file()), root / name)
    return Entry(
        dataset="midog", image=path.relative_to(root).as_posix(), width_px=image["width"], height_px=image["height"],
        mpp=MPP_40X, patient=f"midog-{Path(name).stem}", scanner=str(image.get("scanner", "")),
        mitoses="known" if points else "absent" if labelled else "unknown", mitoses_kind="points",
        mitoses_truth=points_text(points), nuclei="unknown",
    )  # fmt: skip


def import_monuseg(root: Path) -> list[Entry]:
    """MoNuSeg: images beside (or under ``Tissue Images``) XML outlines (``Annotations``) or instance PNGs of the same stem."""
    truths = {p.stem: p for p in sorted(root.rglob("*.xml"))}
    truths |= {p.stem: p for p in sorted(root.rglob("*.png")) if "instance" in p.parent.name.lower()}
    entries = []
    for image in (p for p in _images(root) if p.stem in truths and p != truths[p.stem]):
        w, h = image_size(image)
        truth = truths[image.stem]
        entries.append(
            Entry(
                dataset="monuseg", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
                patient="-".join(image.stem.split("-")[:3]), mitoses="unknown", nuclei="known",
                nuclei_kind="monuseg-xml" if truth.suffix == ".xml" else "instances",
                nuclei_truth=truth.relative_to(root).as_posix(),
            )
        )  # fmt: skip
    return entries


def import_rgb(root: Path) -> list[Entry]:
    """The paper's label maps: ``images/NAME`` and ``labels/NAME`` in red (nuclei), green (mitoses), blue (boundary), black."""
    entries = []
    for image in _images(root / "images"):
        truth = next((p for p in _images(root / "labels") if p.stem == image.stem), None)
        if truth is None:
            raise DataError(f"{image} has no label map of the same name in {root / 'labels'}.")
        w, h = image_size(image)
        name = truth.relative_to(root).as_posix()
        entries.append(
            Entry(
                dataset="rgb", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
                patient=image.stem.split("_")[0], mitoses="known", mitoses_kind="rgb", mitoses_truth=name,
                nuclei="known", nuclei_kind="rgb", nuclei_truth=name,
            )
        )  # fmt: skip
    return entries


def import_shared(root: Path) -> list[Entry]:
    """The folders ``amibr``, ``icpr12``, ``icpr12_unmarked`` and ``monuseg`` of ``../shared/data``, with its rules for honest use."""
    return [e for name, read in SHARED.items() for e in read(root / name)]


def _amibr(folder: Path) -> Iterator[Entry]:
    for r in _rows(folder / "crops.csv"):
        yield Entry(
            dataset="amibr", image=f"{folder.name}/{r['file']}", width_px=128, height_px=128, mpp=MPP_40X,
            patient=f"{r['dataset']}-{Path(r['slide']).stem.split('_')[0]}", scanner=r["dataset"], split=r["split"],
            mitoses="known", mitoses_kind="points", mitoses_truth=r["mitoses_px"], nuclei="unknown",
        )  # fmt: skip


def _split_icpr12(name: str) -> str:
    """Slides 00 and 02 are for training, slide 01 (either scanner) for choosing."""
    return "val" if name[1:3] == "01" else "train"


def _shared_icpr12(folder: Path) -> Iterator[Entry]:
    for image in sorted((folder / "images").glob("*.jpg")):
        yield Entry(
            dataset="icpr12", image=f"{folder.name}/images/{image.name}", width_px=2084, height_px=2084, mpp=ICPR12_MPP["A"],
            patient=f"icpr12-{image.stem[1:3]}", scanner="Aperio", split=_split_icpr12(image.stem), mitoses="known",
            mitoses_kind="instances", mitoses_truth=f"{folder.name}/mitoses/{image.stem}.png", nuclei="unknown",
        )  # fmt: skip


def _unmarked(folder: Path) -> Iterator[Entry]:
    for r in _rows(folder / "fields.csv"):
        yield Entry(
            dataset="icpr12_unmarked", image=f"{folder.name}/images/{r['field']}.jpg", width_px=int(r["width_px"]),
            height_px=int(r["height_px"]), mpp=ICPR12_MPP[r["field"][0]], patient=f"icpr12-{r['slide'][1:3]}",
            scanner=r["scanner"], split=_split_icpr12(r["field"]), mitoses="absent", nuclei="unknown",
            ignore=f"{folder.name}/unknown/{r['field']}.png",
        )  # fmt: skip


def _shared_monuseg(folder: Path) -> Iterator[Entry]:
    for r in _rows(folder / "images.csv"):
        image = next((folder / "images").glob(r["image"] + ".*"))
        kind: TruthKind = "instances" if r["label"] == "instances" else "foreground"
        yield Entry(
            dataset="monuseg", image=image.relative_to(folder.parent).as_posix(), width_px=1000, height_px=1000, mpp=MPP_40X,
            patient="-".join(r["image"].split("-")[:3]), split=r["split"], mitoses="unknown", nuclei="known",
            nuclei_kind=kind, nuclei_truth=f"{folder.name}/{kind}/{r['image']}.png",
        )  # fmt: skip


SHARED: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "amibr": _amibr,
    "icpr12": _shared_icpr12,
    "icpr12_unmarked": _unmarked,
    "monuseg": _shared_monuseg,
}
"""The folders of ``../shared/data``; the entries' paths are below the folder that holds them."""

IMPORTERS: dict[str, Callable[[Path], list[Entry]]] = {
    "tupac16": import_tupac16,
    "icpr12": import_icpr12,
    "icpr14": import_icpr14,
    "midog": import_midog,
    "monuseg": import_monuseg,
    "rgb": import_rgb,
    "shared": import_shared,
}


def import_data(kind: str, root: Path) -> list[Entry]:
    """Import a data set.

    Raises
    ------
    DataError
        If the layout is not known, or no image of it is there.
    """
    if kind not in IMPORTERS:
        raise DataError(f"There is no importer '{kind}'. Known layouts: {', '.join(IMPORTERS)}.")
    entries = IMPORTERS[kind](root)
    if not entries:
        raise DataError(f"{root} holds no images in the layout of {kind}. See training/README.md.")
    return entries
