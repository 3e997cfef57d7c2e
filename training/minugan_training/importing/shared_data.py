"""The folders of ``../shared/data``, with its rules for honest use."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from minugan_training.data.images import ICPR12_MPP, MPP_40X
from minugan_training.data.index import Entry, TruthKind, points_of
from minugan_training.importing.scanners import amibr_scanner
from wsi_minugan.config import problems_in
from wsi_minugan.errors import DataError

_Row = dict[str, str]
_NUCLEI_OUTLINED = ("tnbc", "consep")


def _entries(path: Path, columns: Sequence[str], entry_of: Callable[[_Row], Entry]) -> Iterator[Entry]:
    """Yield a table's images; a line that does not fit is told by its number."""
    for line, row in enumerate(_rows(path, *columns), start=2):
        try:
            yield entry_of(row)
        except ValidationError as e:
            raise DataError(f"The table {path}, line {line}: {problems_in(e)}. Copy it again.") from e
        except (ValueError, LookupError) as e:
            raise DataError(
                f"The table {path}, line {line}, cannot be understood: {e}. Copy it again."
            ) from e


def _rows(path: Path, *columns: str) -> list[_Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows = list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"The table {path} cannot be read: {e}.") from e
    lacking = [c for c in columns if any(r.get(c) is None for r in rows)]
    if lacking:
        raise DataError(f"The table {path} lacks the columns {', '.join(lacking)}. Copy it again.")
    return rows


def import_shared(root: Path) -> list[Entry]:
    """All folders of ``../shared/data`` that hold labelled images.

    Parameters
    ----------
    root : Path
        The folder.

    Returns
    -------
    list of Entry
        With paths below it.
    """
    return [e for name, read in SHARED.items() for e in read(root / name)]


def _amibr(folder: Path) -> Iterator[Entry]:
    def entry_of(r: _Row) -> Entry:
        return Entry(
            dataset="amibr", image=f"{folder.name}/{r['file']}", width_px=128, height_px=128, mpp=MPP_40X,
            patient=_amibr_patient(r["dataset"], r["slide"]), split=r["split"],
            scanner=amibr_scanner(r["dataset"], r["slide"]),
            mitoses="known", mitoses_kind="points", mitoses_truth=r["mitoses_px"], mitoses_votes=_votes(r), nuclei="unknown",
        )  # fmt: skip

    columns = ("file", "dataset", "slide", "split", "mitoses_px", "votes")
    return _entries(folder / "crops.csv", columns, entry_of)


def _votes(row: _Row) -> str:
    """Return the share of votes of a crop's mitoses: that of the one in its middle is known."""
    for_it, of_all = map(int, row["votes"].split("/"))
    middle = f"{for_it / of_all:.3g}"
    points = points_of(row["mitoses_px"])
    return ";".join(middle if math.dist(p, (64, 64)) < 3 else "" for p in points)


def _amibr_patient(dataset: str, slide: str) -> str:
    """Return the name that the same patient has in TUPAC16's and MIDOG's own layouts, so that `data check` knows it again."""
    return f"{dataset.lower().removesuffix('21')}-{Path(slide).stem.split('_')[0]}"


def _split_icpr12(name: str) -> str:
    """Slides 00 and 02 are for training, slide 01 (either scanner) for choosing."""
    return "val" if name[1:3] == "01" else "train"


def _icpr12(folder: Path) -> Iterator[Entry]:
    for image in sorted((folder / "images").glob("*.jpg")):
        yield Entry(
            dataset="icpr12", image=f"{folder.name}/images/{image.name}", width_px=2084, height_px=2084, mpp=ICPR12_MPP["A"],
            patient=f"icpr12-{image.stem[1:3]}", scanner="Aperio", split=_split_icpr12(image.stem), mitoses="known",
            mitoses_kind="instances", mitoses_truth=f"{folder.name}/mitoses/{image.stem}.png", nuclei="unknown",
        )  # fmt: skip


def _unmarked(folder: Path) -> Iterator[Entry]:
    def entry_of(r: _Row) -> Entry:
        return Entry(
            dataset="icpr12_unmarked", image=f"{folder.name}/images/{r['field']}.jpg", width_px=int(r["width_px"]),
            height_px=int(r["height_px"]), mpp=ICPR12_MPP[r["field"][0]], patient=f"icpr12-{r['slide'][1:3]}",
            scanner=r["scanner"], split=_split_icpr12(r["field"]), mitoses="absent", nuclei="unknown",
            ignore=f"{folder.name}/unknown/{r['field']}.png",
        )  # fmt: skip

    return _entries(folder / "fields.csv", ("field", "scanner", "slide", "width_px", "height_px"), entry_of)


def _monuseg(folder: Path) -> Iterator[Entry]:
    def entry_of(r: _Row) -> Entry:
        image = next((folder / "images").glob(r["image"] + ".*"), None)
        if image is None:
            raise DataError(
                f"{folder / 'images'} has no image {r['image']}, which images.csv lists. Copy it again."
            )
        kind: TruthKind = "instances" if r["label"] == "instances" else "foreground"
        return Entry(
            dataset="monuseg", image=image.relative_to(folder.parent).as_posix(), width_px=1000, height_px=1000, mpp=MPP_40X,
            patient="-".join(r["image"].split("-")[:3]), split=r["split"], mitoses="unknown", nuclei="known",
            nuclei_kind=kind, nuclei_truth=f"{folder.name}/{kind}/{r['image']}.png",
        )  # fmt: skip

    return _entries(folder / "images.csv", ("image", "split", "label"), entry_of)


def _mitos14(folder: Path) -> Iterator[Entry]:
    labels: dict[str, dict[str, list[_Row]]] = defaultdict(lambda: defaultdict(list))
    for row in _rows(folder / "labels.csv", "frame", "kind", "x_px", "y_px", "agreement"):
        labels[row["frame"]][row["kind"]].append(row)

    def points(frame: str, kind: str) -> str:
        return ";".join(f"{float(r['x_px']):g} {float(r['y_px']):g}" for r in labels[frame][kind])

    def entry_of(r: _Row) -> Entry:
        name = r["frame"]
        return Entry(
            dataset="mitos14", image=f"{folder.name}/{r['file']}", width_px=int(r["width_px"]), height_px=int(r["height_px"]),
            mpp=ICPR12_MPP["H"], patient=f"mitos14-{r['slide']}", scanner="Hamamatsu", split=r["split"], mitoses="known",
            mitoses_kind="points", mitoses_truth=points(name, "mitosis"),
            mitoses_votes=";".join(m["agreement"] for m in labels[name]["mitosis"]),
            look_alikes=points(name, "look_alike"), unknown_points=points(name, "unknown"), nuclei="unknown",
        )  # fmt: skip

    return _entries(
        folder / "frames.csv", ("frame", "file", "slide", "split", "width_px", "height_px"), entry_of
    )


def _midesec(folder: Path) -> Iterator[Entry]:
    outlines: dict[str, list[str]] = defaultdict(list)
    for row in _rows(folder / "mitoses.csv", "field", "polygon_xy_px"):
        outlines[row["field"]].append(row["polygon_xy_px"])

    def entry_of(r: _Row) -> Entry:
        return Entry(
            dataset="midesec", image=f"{folder.name}/{r['file']}", width_px=int(r["width_px"]), height_px=int(r["height_px"]),
            mpp=MPP_40X, patient=f"midesec-{r['group']}", scanner="3DHISTECH", split=r["split"], mitoses="known",
            mitoses_kind="polygons", mitoses_truth=";".join(outlines[r["field"]]), nuclei="unknown",
        )  # fmt: skip

    return _entries(
        folder / "fields.csv", ("field", "file", "group", "split", "width_px", "height_px"), entry_of
    )


def _nuclei(folder: Path) -> Iterator[Entry]:
    def entry_of(r: _Row) -> Entry:
        truth, unknown = (folder / kind / f"{r['image']}.png" for kind in ("instances", "unknown"))
        outlined = r["set"] in _NUCLEI_OUTLINED
        return Entry(
            dataset=r["set"], image=f"{folder.name}/images/{r['image']}.jpg", width_px=int(r["width_px"]),
            height_px=int(r["height_px"]), mpp=float(r["mpp"]), patient=r["patient"], split=r["split"],
            mitoses="absent" if r["mitoses"] == "absent" else "unknown", nuclei="known" if outlined else "unknown",
            nuclei_kind="instances" if outlined else "", nuclei_truth=truth.relative_to(folder.parent).as_posix() if outlined else "",
            ignore=unknown.relative_to(folder.parent).as_posix() if unknown.exists() else "",
        )  # fmt: skip

    columns = ("image", "set", "patient", "split", "mpp", "width_px", "height_px", "mitoses")
    return _entries(folder / "images.csv", columns, entry_of)


SHARED: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "amibr": _amibr,
    "icpr12": _icpr12,
    "icpr12_unmarked": _unmarked,
    "monuseg": _monuseg,
    "mitos14": _mitos14,
    "midesec": _midesec,
    "nuclei": _nuclei,
}
"""The folders' readers; the entries' paths are below the folder that holds them."""
