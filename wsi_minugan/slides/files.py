"""The files that a slide consists of, and what they say without being opened as a slide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.slides.checks.dicom import series_of
from wsi_minugan.slides.guarded import STALL_S, StallGuard, within

SEVERAL_FILES = frozenset({".mrxs", ".dcm", ".vms", ".vmu", ".zarr"})
"""Endings of slides of which the named file is only a part."""

_SAMPLE_BYTES = 2**20
_SAMPLES = 64

FileSignature = tuple[int, int, int]


def files_of(path: Path) -> list[Path]:
    """Return the files of a slide, sorted; of DICOM all of its folder, whichever series they are of.

    Parameters
    ----------
    path : Path
        The file, or folder, that the slide is named by.

    Returns
    -------
    list of Path
        Files that exist. Empty where the slide is not there.
    """
    suffix, files = path.suffix.lower(), [path] if path.is_file() else []
    if suffix in {".mrxs", ".zarr"}:
        folder = path if suffix == ".zarr" else path.with_suffix("")
        files += folder.rglob("*") if folder.is_dir() else []
    elif suffix in {".vms", ".vmu"}:
        files += path.parent.glob(f"{path.stem.replace('[', '[[]')}*")
    elif suffix == ".dcm":
        # Not all that lies there: results may, and each run would make its own slides new arrivals.
        files += (p for p in path.parent.iterdir() if p.suffix.lower() == suffix)
    return sorted({p for p in files if p.is_file()})


def signature_of(path: Path) -> FileSignature:
    """Return number, size and latest change of a slide's files.

    Parameters
    ----------
    path : Path
        The file, or folder, that the slide is named by.

    Returns
    -------
    FileSignature
        Number of files, their size together in bytes, and the time of the latest change in ns.

    Raises
    ------
    FileNotFoundError
        If the slide has no files.
    OSError
        If one of them cannot be looked at.
    """
    stats = [p.stat() for p in files_of(path)]
    if not stats:
        raise FileNotFoundError(path)
    return len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)


def signatures_of(paths: Iterable[Path], guard: StallGuard) -> dict[Path, FileSignature]:
    """Return the signatures of those slides that have one and answer.

    Each folder is asked at once, since what hangs is most often all of it.

    Parameters
    ----------
    paths : iterable of Path
        The slides.
    guard : StallGuard
        Asks the file system, and gives up where it does not answer.

    Returns
    -------
    dict of Path to FileSignature
        Signatures by slide, without slides that are not there.
    """
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    found: dict[Path, FileSignature] = {}
    for folder, members in folders.items():
        with suppress(SlideUnreadableError):
            found |= guard.ask(folder, partial(_signatures, members))
    return found


def _signatures(paths: Iterable[Path]) -> dict[Path, FileSignature]:
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = signature_of(path)
    return found


def file_state(path: Path, guard: StallGuard) -> str:
    """Return a signature that changes when a slide's files are written again; cheap.

    It is empty where there is no file, or where the file system does not answer.

    Parameters
    ----------
    path : Path
        The slide.
    guard : StallGuard
        Asks what may hang.

    Returns
    -------
    str
        The signature.
    """
    try:
        signature = guard.ask(path, lambda: signature_of(path))
    except (OSError, SlideUnreadableError):
        return ""
    return hashlib.sha256(repr(signature).encode()).hexdigest()[:16]


def companions_of(path: Path) -> list[tuple[str, int]]:
    """Return name and size of each file that belongs to the slide beside the one it is named by.

    Parameters
    ----------
    path : Path
        The slide.

    Returns
    -------
    list of (str, int)
        Sorted.
    """
    files = [p for p in files_of(path) if p != path]
    if path.suffix.lower() == ".dcm":
        series = series_of(path)
        files = [p for p in files if series_of(p) == series]
    root = path if path.is_dir() else path.parent
    return [(p.relative_to(root).as_posix(), p.stat().st_size) for p in files]


def fingerprint(path: Path, stall_s: float = STALL_S) -> str:
    """Return SHA-256 of a slide's size and of 64 MiB of its content, spread from the first to the last byte; smaller ones whole.

    Slides are gigabytes: reading all of one only to know it again would take longer than many a run. Of a slide of several
    files the one named is sampled, and the others count by name and size.

    Parameters
    ----------
    path : Path
        The slide.
    stall_s : float
        Longest time for one answer of it; all of them may take longer where many read over one slow line.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SlideUnreadableError
        If it cannot be read, or does not answer in time.
    """
    digest = hashlib.sha256()
    try:
        for part in _samples(path, partial(within, stall_s, path)):
            digest.update(part)
    except OSError as e:
        raise SlideUnreadableError(
            f"{path} cannot be read: {e.strerror or e}. Check the name and whether the drive is connected."
        ) from e
    return digest.hexdigest()


def _samples(path: Path, ask: Callable[[Callable[[], Any]], Any]) -> Iterator[bytes]:
    size = ask(path.stat).st_size
    yield str(size).encode()
    if path.suffix.lower() in SEVERAL_FILES:
        yield repr(sorted(ask(partial(companions_of, path)))).encode()
    if ask(path.is_dir):
        return
    for k in range(_SAMPLES):
        yield ask(partial(_sample, path, max(0, (size - _SAMPLE_BYTES) * k // (_SAMPLES - 1))))


def _sample(path: Path, start: int) -> bytes:
    with path.open("rb") as f:
        f.seek(start)
        return f.read(_SAMPLE_BYTES)
