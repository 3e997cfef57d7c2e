"""From the published layouts of data sets to the index; design.md, Files of other people's formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minugan_training.data.index import Entry
from minugan_training.importing.mitosis_sets import import_icpr12, import_icpr14, import_midog, import_tupac16
from minugan_training.importing.nucleus_sets import import_monuseg, import_rgb
from minugan_training.importing.shared_data import import_shared
from wsi_minugan.errors import DataError

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

    Parameters
    ----------
    kind : str
        Name of a layout; see `IMPORTERS`.
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        With paths below `root`.

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
