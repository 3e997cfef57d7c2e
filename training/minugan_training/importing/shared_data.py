"""The folders of ``../shared/data``, with its rules for honest use."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from minugan_training.data.images import ICPR12_MPP, MPP_40X
from minugan_training.data.index import Entry, TruthKind
from minugan_training.importing.scanners import amibr_scanner
from wsi_minugan.config import problems_in
from wsi_minugan.errors import DataError

_Row = dict[str, str]


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
    """The folders ``amibr``, ``icpr12``, ``icpr12_unmarked`` and ``monuseg`` of ``../shared/data``."""
    return [e for name, read in SHARED.items() for e in read(root / name)]


def _amibr(folder: Path) -> Iterator[Entry]:
    def entry_of(r: _Row) -> Entry:
        return Entry(
            dataset="amibr", image=f"{folder.name}/{r['file']}", width_px=128, height_px=128, mpp=MPP_40X,
            patient=_amibr_patient(r["dataset"], r["slide"]), split=r["split"],
            scanner=amibr_scanner(r["dataset"], r["slide"]),
            mitoses="known", mitoses_kind="points", mitoses_truth=r["mitoses_px"], nuclei="unknown",
        )  # fmt: skip

    columns = ("file", "dataset", "slide", "split", "mitoses_px")
    return _entries(folder / "crops.csv", columns, entry_of)


def _amibr_patient(dataset: str, slide: str) -> str:
    """Return the name that the same patient has in TUPAC16's and MIDOG's own layouts, so that `data check` knows it again."""
    return f"{dataset.lower().removesuffix('21')}-{Path(slide).stem.split('_')[0]}"


def _split_icpr12(name: str) -> str:
    """Slides 00 and 02 are for training, slide 01 (either scanner) for choosing."""
    return "val" if name[1:3] == "01" else "train"


def _icpr12(folder: Path) -> Iterator[Entry]:
    # Its mitoses' surroundings come from crops with all their colours, the rest from a JPEG with a quarter of them.
    for image in sorted((folder / "images").glob("*.jpg")):
        yield Entry(
            dataset="icpr12", image=f"{folder.name}/images/{image.name}", width_px=2084, height_px=2084, mpp=ICPR12_MPP["A"],
            patient=f"icpr12-{image.stem[1:3]}", scanner="Aperio", split=_split_icpr12(image.stem), colours="uneven", mitoses="known",
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


SHARED: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "amibr": _amibr,
    "icpr12": _icpr12,
    "icpr12_unmarked": _unmarked,
    "monuseg": _monuseg,
}
"""The folders' readers; the entries' paths are below the folder that holds them."""
