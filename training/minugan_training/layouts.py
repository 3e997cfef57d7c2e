"""Which layout a folder of data has, told by what lies in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minugan_training.importers import IMPORTERS, SHARED, import_data
from minugan_training.index import Entry
from wsi_minugan.errors import DataError

_PARTS_OF_SHARED = {
    "amibr": "crops.csv",
    "icpr12": "mitoses.csv",
    "icpr12_unmarked": "fields.csv",
    "monuseg": "images.csv",
}
"""The table by which each folder of ``../shared/data`` is known, whatever its name."""

_LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "shared": lambda f: all((f / name).is_dir() for name in SHARED),
    "midog": lambda f: any(f.glob("*.json")),
    "icpr14": lambda f: any(f.glob("*/frames/x40/*.tif*")),
    "rgb": lambda f: (f / "images").is_dir() and (f / "labels").is_dir(),
    "monuseg": lambda f: any(f.rglob("*.xml")) or any(p.is_dir() for p in f.glob("*nstance*")),
    "icpr12": lambda f: any(f.rglob("[AH][0-9][0-9]_[0-9][0-9].*")),
    "tupac16": lambda f: any(f.rglob("[0-9][0-9]/[0-9][0-9].tif")),
}


def import_folder(folder: Path) -> tuple[Path, list[Entry]]:
    """Import a folder in whatever known layout it has.

    Parameters
    ----------
    folder : Path
        A published data set, ``../shared/data``, or one of its folders.

    Returns
    -------
    root : Path
        What the entries' paths are below.
    entries : list of Entry
        The images.

    Raises
    ------
    DataError
        If it has none of them.
    """
    folder = folder.absolute()
    for name, table in _PARTS_OF_SHARED.items():
        if (folder / table).is_file() and (folder / "images").is_dir():
            return folder.parent, list(SHARED[name](folder))
    for name, fits in _LAYOUTS.items():
        if fits(folder):
            return folder, import_data(name, folder)
    raise DataError(
        f"{folder} has no known layout ({', '.join(IMPORTERS)}). Import it with: minugan-train data import"
    )
