"""Data sets of mitoses: TUPAC16, ICPR 2012, ICPR 2014 and MIDOG, from their published layouts to the index."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minugan_training.data.images import ICPR12_MPP, MPP_40X, image_size, list_images, one_for_each
from minugan_training.data.index import Entry, points_text
from minugan_training.importing.scanners import midog21_scanner, scanner_mpp, tupac16_scanner
from wsi_minugan.errors import DataError

_ICPR12_NAME = re.compile(r"[AH]\d\d_\d\d")


def _points(path: Path) -> list[tuple[float, float]]:
    """Return the first two numbers of each line."""
    try:
        lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        rows = [[float(v) for v in line.replace(";", ",").split(",") if v.strip()] for line in lines]
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e
    for line, row in zip(lines, rows, strict=True):
        if len(row) < 2:
            raise DataError(f"The truth {path} has the line '{line}': a centre needs two numbers.")
    return [(row[0], row[1]) for row in rows]


def _need_truth(kind: str, root: Path, found: Sequence[object], where: str) -> None:
    """Refuse a set without any truth: its images are not free of mitoses, its truth is elsewhere."""
    if not any(found):
        raise DataError(f"{root} holds images of {kind}, but no truth. Expected {where}.")


def _field_of(path: Path) -> tuple[int, int]:
    return int(path.parent.name), int(path.stem)


def _has_field(path: Path) -> bool:
    return path.parent.name.isdecimal() and path.stem.isdecimal()


def tupac16_images(root: Path) -> list[Path]:
    """Return TUPAC16's images, ``NN/MM.tif`` in any folder.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Path
        Sorted.
    """
    return one_for_each(filter(_has_field, list_images(root)), lambda p: p.with_suffix(""))


def _tupac16_truths(root: Path, images: Sequence[Path]) -> list[Path | None]:
    """Return each image's truth: beside it, or in a folder of the same number elsewhere."""
    tables: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for table in sorted(filter(_has_field, root.rglob("*.csv"))):
        tables[_field_of(table)].append(table)
    images_of = Counter(map(_field_of, images))
    truths: list[Path | None] = []
    for image in images:
        beside, known = image.with_suffix(".csv"), tables[_field_of(image)]
        if known and beside not in known and (len(known) > 1 or images_of[_field_of(image)] > 1):
            case = f"{image.parent.name}/{image.stem}"
            raise DataError(f"{root} holds {case} more than once. Import the folders of the set one by one.")
        truths.append(beside if beside in known else next(iter(known), None))
    return truths


def import_tupac16(root: Path) -> list[Entry]:
    """TUPAC16's auxiliary set: ``NN/MM.tif`` and ``NN/MM.csv`` of lines ``row,column``.

    The set is published in parts, ``mitoses_image_data_part_1/NN/MM.tif`` and so on, with its truth in
    ``mitoses_ground_truth/NN/MM.csv``. Images without mitoses have no truth file.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        Empty where there is no image.

    Raises
    ------
    DataError
        If the truth is missing.
    """
    images = tupac16_images(root)
    truths = _tupac16_truths(root, images)
    if images:
        where = "beside the images as NN/MM.csv, and in mitoses_ground_truth/NN/MM.csv"
        _need_truth("tupac16", root, truths, where)
    return [_tupac16_entry(root, i, t) for i, t in zip(images, truths, strict=True)]


def _tupac16_entry(root: Path, image: Path, truth: Path | None) -> Entry:
    points = [(x, y) for y, x in _points(truth)] if truth else []
    w, h = image_size(image)
    return Entry(
        dataset="tupac16", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
        patient=f"tupac16-{image.parent.name}", scanner=tupac16_scanner(int(image.parent.name)),
        mitoses="known" if points else "absent", mitoses_kind="points", mitoses_truth=points_text(points),
        nuclei="unknown",
    )  # fmt: skip


def icpr12_images(root: Path) -> list[Path]:
    """Return ICPR 2012's images, ``A00_01.bmp``; the ``A00_01.jpg`` beside it has the mitoses drawn in.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Path
        Sorted.
    """
    return one_for_each((p for p in list_images(root) if _ICPR12_NAME.fullmatch(p.stem)), lambda p: p.stem)


def import_icpr12(root: Path) -> list[Entry]:
    """ICPR 2012: ``A00_01.bmp`` and ``A00_01.csv``, a line of ``x,y,x,y,…`` for each mitosis.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        Empty where there is no image.

    Raises
    ------
    DataError
        If no image has its truth.
    """
    images = icpr12_images(root)
    if images:
        found = [p.with_suffix(".csv").is_file() for p in images]
        _need_truth("icpr12", root, found, "beside the images, as A00_01.csv for A00_01.bmp")
    return [_icpr12_entry(root, i) for i in images]


def _icpr12_entry(root: Path, image: Path) -> Entry:
    truth = image.with_suffix(".csv")
    w, h = image_size(image)
    there = truth.is_file() and truth.stat().st_size > 0
    return Entry(
        dataset="icpr12", image=image.relative_to(root).as_posix(), width_px=w, height_px=h,
        mpp=ICPR12_MPP[image.stem[0]], patient=f"icpr12-{image.stem[1:3]}",
        scanner="Aperio" if image.stem[0] == "A" else "Hamamatsu", mitoses="known" if there else "absent",
        mitoses_kind="pixel-lists" if there else "",
        mitoses_truth=truth.relative_to(root).as_posix() if there else "", nuclei="unknown",
    )  # fmt: skip


def icpr14_images(root: Path) -> list[Path]:
    """Return ICPR 2014's images, ``A03/frames/x40/A03_00Aa.tiff`` in any folder.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Path
        Sorted.
    """
    return one_for_each(root.rglob("frames/x40/*.tif*"), lambda p: p.with_suffix(""))


def import_icpr14(root: Path) -> list[Entry]:
    """ICPR 2014 (MITOS-ATYPIA): ``A03/frames/x40/A03_00Aa.tiff``, ``A03/mitosis/A03_00Aa_mitosis.csv`` of ``x,y,confidence``.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        Empty where there is no image.

    Raises
    ------
    DataError
        If no image has its truth.
    """
    images = icpr14_images(root)
    truths = [p.parents[2] / "mitosis" / f"{p.stem}_mitosis.csv" for p in images]
    if images:
        found = [t.is_file() for t in truths]
        _need_truth("icpr14", root, found, "beside the folders frames, as mitosis/A03_00Aa_mitosis.csv")
    return [_icpr14_entry(root, i, t) for i, t in zip(images, truths, strict=True)]


def _icpr14_entry(root: Path, image: Path, truth: Path) -> Entry:
    points = _points(truth) if truth.is_file() else []
    w, h = image_size(image)
    return Entry(
        dataset="icpr14", image=image.relative_to(root).as_posix(), width_px=w, height_px=h,
        mpp=ICPR12_MPP.get(image.stem[0], MPP_40X), patient=f"icpr14-{image.stem[1:3]}",
        scanner="Aperio" if image.stem[0] == "A" else "Hamamatsu", mitoses="known" if points else "absent",
        mitoses_kind="points", mitoses_truth=points_text(points), nuclei="unknown",
    )  # fmt: skip


def import_midog(root: Path) -> list[Entry]:
    """MIDOG: a COCO-like JSON beside the images; ``bbox`` is [x0, y0, x1, y1], category 1 the mitotic figures.

    MIDOG 2021's JSON does not name the scanners, but its numbers tell them: 001 to 050 Hamamatsu XR, to 100 Hamamatsu S360,
    to 150 Aperio CS2, to 200 Leica GT450 (unlabelled). They are filled in where every image is so numbered and none has a
    scanner; later editions go on to higher numbers, which mean other scanners.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        One for each image of the JSON.

    Raises
    ------
    DataError
        If there is no JSON, or it does not fit.
    """
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
        scanners = _midog21_scanners(content["images"])
        images = [{"scanner": scanners.get(i["file_name"], "")} | i for i in content["images"]]
        return [_midog_entry(root, i, found.get(i["id"], []), i["id"] in labelled) for i in images]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{tables[0]} is not a MIDOG table: {e!r}.") from e


def _midog21_scanners(images: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the scanner of each file of MIDOG 2021; nothing for another edition."""
    numbers = {i["file_name"]: Path(i["file_name"]).stem for i in images}
    numbered = all(re.fullmatch(r"\d{3}", n) and midog21_scanner(int(n)) for n in numbers.values())
    if not numbered or any("scanner" in i for i in images):
        return {}
    return {f: midog21_scanner(int(n)) for f, n in numbers.items()}


def _midog_entry(
    root: Path, image: dict[str, Any], points: list[tuple[float, float]], labelled: bool
) -> Entry:
    name = image["file_name"]
    path = next((p for p in (root / name, root / "images" / name) if p.is_file()), root / name)
    return Entry(
        dataset="midog", image=path.relative_to(root).as_posix(), width_px=image["width"], height_px=image["height"],
        mpp=scanner_mpp(str(image["scanner"])), patient=f"midog-{Path(name).stem}", scanner=str(image["scanner"]),
        mitoses="known" if points else "absent" if labelled else "unknown", mitoses_kind="points",
        mitoses_truth=points_text(points), nuclei="unknown",
    )  # fmt: skip
