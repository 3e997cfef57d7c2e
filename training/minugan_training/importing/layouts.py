"""Which layout a folder of data has, told by what lies in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minugan_training.data.index import Entry
from minugan_training.importing.importers import IMPORTERS, import_data
from minugan_training.importing.mitosis_sets import icpr12_images, icpr14_images, tupac16_images
from minugan_training.importing.nucleus_sets import monuseg_pairs
from minugan_training.importing.shared_data import SHARED
from wsi_minugan.errors import DataError

_PARTS_OF_SHARED = {
    "amibr": ("crops.csv",),
    "icpr12": ("mitoses.csv", "mitoses"),
    "midesec": ("fields.csv", "mitoses.csv"),
    "icpr12_unmarked": ("fields.csv", "unknown"),
    "mitos14": ("frames.csv", "labels.csv"),
    "nuclei": ("images.csv", "unknown"),
    "monuseg": ("images.csv", "foreground"),
}
"""What each folder of ``../shared/data`` holds beside its images, by which it is known, whatever its name."""

_LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "shared": lambda f: all((f / name).is_dir() for name in SHARED),
    "midog": lambda f: any(f.glob("*.json")),
    "icpr14": lambda f: bool(icpr14_images(f)),
    "rgb": lambda f: (f / "images").is_dir() and (f / "labels").is_dir(),
    "monuseg": lambda f: bool(monuseg_pairs(f)),
    "icpr12": lambda f: bool(icpr12_images(f)),
    "tupac16": lambda f: bool(tupac16_images(f)),
}
"""Tells of a layout; images are sought where the importers seek them."""


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
    for name, parts in _PARTS_OF_SHARED.items():
        if (folder / "images").is_dir() and all((folder / p).exists() for p in parts):
            return folder.parent, list(SHARED[name](folder))
    for name, fits in _LAYOUTS.items():
        if fits(folder):
            return folder, import_data(name, folder)
    raise DataError(
        f"{folder} has no known layout ({', '.join(IMPORTERS)}). Import it with: minugan-train data import"
    )
