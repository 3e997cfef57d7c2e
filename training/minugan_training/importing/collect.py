"""From several data sets to one index: a root for all, and the split and name that a layout does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from minugan_training.data.index import WRITTEN_OUT, Entry
from minugan_training.importing.importers import import_data
from wsi_minugan.errors import DataError

Split = Literal["train", "val", "test", ""]


def import_set(
    layout: str, folder: Path, root: Path | None = None, split: Split = "", dataset: str = ""
) -> list[Entry]:
    """Import a data set as a part of an index.

    Parameters
    ----------
    layout : str
        Name of a published layout; see `importers.IMPORTERS`.
    folder : Path
        The data set.
    root : Path, optional
        What the entries' paths are to be below; it holds the folder. By default the folder itself.
    split : str
        Of images that the layout puts in no split.
    dataset : str
        The set's name, in place of the layout's.

    Returns
    -------
    list of Entry
        With paths below `root`.

    Raises
    ------
    DataError
        If the folder does not hold the layout, does not lie below the root, or holds several sets to be named as one.
    """
    prefix = _below(root or folder, folder)
    entries = [_moved(e, prefix) for e in import_data(layout, folder)]
    if dataset:
        entries = _named(entries, dataset)
    return [e if e.split else e.model_copy(update={"split": split}) for e in entries]


def joined(there: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Return an index with more entries.

    Parameters
    ----------
    there : sequence of Entry
        The index.
    new : sequence of Entry
        What is added.

    Returns
    -------
    list of Entry
        Both.

    Raises
    ------
    DataError
        If one of their images is in it already.
    """
    images = {e.image for e in there}
    twice = [e.image for e in new if e.image in images]
    if twice:
        raise DataError(
            f"The index has {len(twice)} of these images already, {twice[0]} for one. Nothing was added."
        )
    return [*there, *new]


def _below(root: Path, folder: Path) -> Path:
    """Return a folder's path below a root, whether links in it are followed or not."""
    for r, f in ((root.resolve(), folder.resolve()), (root.absolute(), folder.absolute())):
        if f.is_relative_to(r) and ".." not in f.relative_to(r).parts:
            return f.relative_to(r)
    raise DataError(f"{folder} does not lie below {root}. Give a --root that holds it.")


def _moved(entry: Entry, prefix: Path) -> Entry:
    paths = {"image": entry.image, "ignore": entry.ignore}
    if entry.mitoses_kind not in WRITTEN_OUT:
        paths["mitoses_truth"] = entry.mitoses_truth
    if entry.nuclei_kind not in WRITTEN_OUT:
        paths["nuclei_truth"] = entry.nuclei_truth
    return entry.model_copy(update={k: (prefix / p).as_posix() for k, p in paths.items() if p})


def _named(entries: Sequence[Entry], dataset: str) -> list[Entry]:
    names = sorted({e.dataset for e in entries})
    if len(names) > 1:
        raise DataError(f"The folder holds several sets ({', '.join(names)}), which keep their names.")
    return [
        e.model_copy(update={"dataset": dataset, "patient": _patient_in(e.patient, dataset)}) for e in entries
    ]


def _patient_in(patient: str, dataset: str) -> str:
    """Return a patient's name; that of a label map follows the set's, to be found again among the set's other images."""
    return f"{dataset}-{patient.removeprefix('rgb-')}" if patient.startswith("rgb-") else patient
