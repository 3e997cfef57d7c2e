"""The slides in a folder and all folders below it, and what was left out of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.slides.checks.dicom import is_dicom
from wsi_minugan.slides.guarded import StallGuard

SLIDE_SUFFIXES = frozenset(
    [
        *(
            ".svs",
            ".tif",
            ".tiff",
            ".ndpi",
            ".vms",
            ".vmu",
            ".scn",
            ".mrxs",
            ".svslide",
            ".bif",
            ".czi",
            ".dcm",
        ),
        *(".zvi", ".btf", ".jp2", ".zarr"),
    ]
)

UNREAD_SUFFIXES = frozenset(
    [
        *(
            ".qptiff",
            ".vsi",
            ".isyntax",
            ".i2syntax",
            ".kfb",
            ".kfbf",
            ".sdpc",
            ".tmap",
            ".tron",
            ".mds",
            ".mdsx",
        ),
        *(
            ".lif",
            ".nd2",
            ".oir",
            ".oib",
            ".lsm",
            ".ims",
            ".sis",
            ".afi",
            ".ndpis",
            ".hdr",
            ".eslide",
            ".swsi",
        ),
    ]
)
"""Endings of slides that nothing here reads: they are counted, and the user is told."""

MASKS = "masks.zarr"
"""Our own result, which is no slide: an output folder may lie inside the folder of slides."""

_DICOM = "DICOM without the ending .dcm"
_DICOM_INDEX = "DICOMDIR"
_NUMBER = re.compile(r"\.\d+", re.ASCII)


@dataclass
class Found:
    """What a search has found.

    Attributes
    ----------
    slides : list of Path
        Files that count as slides.
    unread : Counter of str
        How many files there are of each known format that nothing here reads.
    """

    slides: list[Path] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path, ask: Callable[[Path, Callable[[], bool]], bool]) -> None:
        """Take a file for what its name says; files without an ending are asked whether they are DICOM.

        Parameters
        ----------
        path : Path
            The file.
        ask : callable
            Does what reads the file, and gives up where it does not answer.
        """
        suffix = path.suffix.lower()
        if path.name.startswith(".") or path.name == MASKS:
            return
        if suffix in SLIDE_SUFFIXES:
            self.slides.append(path)
        elif suffix in UNREAD_SUFFIXES:
            self.unread[suffix] += 1
        elif (not suffix or _NUMBER.fullmatch(suffix)) and path.name != _DICOM_INDEX:
            try:
                self.unread[_DICOM] += ask(path, partial(is_dicom, path))
            except SlideUnreadableError:
                return

    def left_in(self, place: str) -> str:
        """Return a sentence on what was left out, empty where nothing was.

        Parameters
        ----------
        place : str
            Where they were found, in words.

        Returns
        -------
        str
            With the number of each kind.
        """
        kinds = [f"{count} {kind}" for kind, count in sorted(self.unread.items()) if count]
        if not kinds:
            return ""
        more = " DICOM files are read once their names end in .dcm." if self.unread[_DICOM] else ""
        rest = " Convert the others to a format that OpenSlide opens." if set(self.unread) - {_DICOM} else ""
        return f"{place}: files of known formats that nothing here reads were left out ({', '.join(kinds)}).{more}{rest}"


def search(folder: Path, tell: Callable[[str], None], guard: StallGuard) -> Found:
    """Find the slides in a folder and below, also behind symbolic links; each folder is entered once.

    Hidden files (macOS's ``._name.svs``), hidden folders and our own masks do not count.

    Parameters
    ----------
    folder : Path
        Where to look.
    tell : callable
        Takes a sentence on what cannot be read.
    guard : StallGuard
        Asks what may hang.

    Returns
    -------
    Found
        Slides, and what was left out.
    """
    found = Found()
    for root, files in _walked(folder, tell, guard):
        for name in files:
            found.add(Path(root, name), guard.ask)
    found.slides.sort()
    return found


def matching(paths: Iterable[Path], guard: StallGuard) -> Found:
    """Return what the matches of a pattern are: no hidden files, our own masks, or parts of a folder that is a slide.

    Parameters
    ----------
    paths : iterable of Path
        Matches of a pattern.
    guard : StallGuard
        Asks what may hang.

    Returns
    -------
    Found
        Slides, and what was left out.
    """
    found = Found()
    for path in sorted(paths):
        if not any(p.suffix.lower() == ".zarr" for p in path.parents):
            found.add(path, guard.ask)
    return found


def _walked(folder: Path, tell: Callable[[str], None], guard: StallGuard) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder with the names in it that may be slides, until a folder hangs: what lies behind it is left out."""

    def unreadable(e: OSError) -> None:
        tell(
            f"The folder {e.filename} cannot be read: {e.strerror or e}. Its slides are left out; check who may read it."
        )

    entered: set[tuple[int, int]] = set()
    guard.ask(folder, partial(_is_new, folder, entered))
    walk = os.walk(folder, onerror=unreadable, followlinks=True)
    try:
        while (step := guard.ask(folder, lambda: next(walk, None))) is not None:
            root, folders, files = step
            folders.sort()
            yield root, files + [f for f in folders if f.lower().endswith(".zarr")]
            # What is taken out of the list is not entered: hidden folders, NGFF slides, and where a link leads back to.
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".")
                and not name.lower().endswith(".zarr")
                and guard.ask(folder, partial(_is_new, Path(root, name), entered))
            ]
    except SlideUnreadableError:
        tell(
            f"A folder in {folder} does not answer: its slides, and those not listed yet, are left out. Check the network share or drive."
        )


def _is_new(folder: Path, entered: set[tuple[int, int]]) -> bool:
    """Return whether a folder was not entered before, by whatever name."""
    try:
        stat = folder.stat()
    except OSError:
        return True  # entering it tells why it cannot be read
    place = (stat.st_dev, stat.st_ino)
    if place in entered:
        return False
    entered.add(place)
    return True
