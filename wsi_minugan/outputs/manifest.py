"""manifest.json: the checksums of a slide's folder, written and verified."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from wsi_minugan.errors import OutputError
from wsi_minugan.hashing import sha256_of
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.syncing import sync

MANIFEST, SCRATCH, REVIEWS = "manifest.json", ".work", "reviews"
_NO_RESULTS = frozenset([SCRATCH, REVIEWS])
"""Folders beside a slide's results that are none, and are not sealed."""

_MASKS = "masks.zarr/"


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of files below a slide's folder.

    Parameters
    ----------
    folder : Path
        The slide's folder.
    names : iterable of str
        Paths of files in it.

    Returns
    -------
    dict of str to str
        64 hexadecimal digits for each of these paths.
    """
    return {name: sha256_of(folder / name) for name in names}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; with it the slide is finished, and all that it lists is on the disk, not in its cache.

    Parameters
    ----------
    folder : Path
        The slide's folder.
    manifest : Manifest
        Its content; all files that it lists exist.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    files = [folder / name for name in manifest.files]
    for path in [*files, *{parent for f in files for parent in f.parents if parent.is_relative_to(folder)}]:
        sync(path)
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    sync(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read a slide's manifest.

    Parameters
    ----------
    folder : Path
        The slide's folder.

    Returns
    -------
    Manifest
        Its content; whether the files are there was not checked.

    Raises
    ------
    OutputError
        If it is missing or not a manifest.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as e:
        raise OutputError(
            f"{folder} holds no finished result (no readable {MANIFEST}). If it is the folder of a finished slide, "
            "run the same command again: only that slide is done again."
        ) from e


def is_whole(folder: Path) -> bool:
    """Return whether a slide's folder has a manifest and lacks nothing.

    All files are there, and unchanged but for masks, which `verify` reads.

    Parameters
    ----------
    folder : Path
        The slide's folder.

    Returns
    -------
    bool
        False where a file is missing, changed or cut off.
    """
    try:
        listed = read_manifest(folder).files
    except OutputError:
        return False
    # A file of masks holds at least its index: one of no bytes was cut off.
    there = all((folder / name).is_file() and (folder / name).stat().st_size for name in listed)
    return there and all(
        sha256_of(folder / name) == digest for name, digest in listed.items() if not name.startswith(_MASKS)
    )


def manifest_checksum(folder: Path) -> str:
    """Return SHA-256 of a slide's manifest, which lists the checksums of all its files; empty where it cannot be read.

    Parameters
    ----------
    folder : Path
        The slide's folder.

    Returns
    -------
    str
        64 hexadecimal digits, or nothing.
    """
    try:
        return sha256_of(folder / MANIFEST)
    except OSError:
        return ""


def verify(folder: Path, checksum: str = "") -> list[str]:
    """Return a sentence for each file of a slide that is missing, changed or not listed.

    Parameters
    ----------
    folder : Path
        The slide's folder.
    checksum : str
        What `manifest_checksum` returned when the slide was finished; empty where that is not known.

    Returns
    -------
    list of str
        Empty where the folder is as it was when the slide was finished.

    Raises
    ------
    OutputError
        If there is no manifest, or one that cannot be read.
    """
    manifest = read_manifest(folder)
    problems = _contradictions(folder, manifest)
    if checksum and manifest_checksum(folder) != checksum:
        problems.insert(0, f"{MANIFEST}: changed since the run")
    found = (_problem(folder, name, digest) for name, digest in manifest.files.items())
    problems += [text for text in found if text]
    return problems + [f"{name}: not listed in the manifest" for name in _unlisted(folder, manifest)]


def problems_in(folder: Path, manifest: Manifest, places: tuple[str, ...]) -> list[str]:
    """Return what is wrong with some of a slide's files.

    Parameters
    ----------
    folder : Path
        The slide's folder.
    manifest : Manifest
        What the folder should hold: files and their SHA-256.
    places : tuple of str
        What the paths of the files begin with.

    Returns
    -------
    list of str
        A sentence for each that is missing or changed.
    """
    found = (_problem(folder, n, digest) for n, digest in manifest.files.items() if n.startswith(places))
    return [text for text in found if text]


def _problem(folder: Path, name: str, digest: str) -> str:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return f"{name}: lies outside the slide's folder"
        if not path.is_file():
            return f"{name}: missing"
        return "" if sha256_of(path) == digest else f"{name}: changed since the run"
    except OSError as e:
        return f"{name}: cannot be read ({e.strerror or e})"


def _unlisted(folder: Path, manifest: Manifest) -> list[str]:
    """Return what lies in a slide's folder and is not listed, hidden or not; scratch and reviews are no results and may be there."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_symlink() or not p.is_dir())
    names = (p.relative_to(folder).as_posix() for p in files)
    known = {MANIFEST, *manifest.files}
    return [name for name in names if name not in known and name.split("/", 1)[0] not in _NO_RESULTS]


def _contradictions(folder: Path, manifest: Manifest) -> list[str]:
    """Return what a manifest says otherwise than count.json, which was made from the same numbers."""
    try:
        count = json.loads((folder / "count.json").read_bytes())
        pairs = {
            "mpp": (manifest.slide.mpp, count["mpp"]),
            "tissue_mm2": (manifest.tissue_mm2, round(count["area_mm2"], 6)),
        }
        lacking = set(count.get("warnings", ())) - set(manifest.warnings)
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a damaged count.json is told by its digest
    found = [f"{MANIFEST}: says {k} {a}, and count.json {b}" for k, (a, b) in pairs.items() if a != b]
    return found + [f"{MANIFEST}: lacks a warning that count.json holds" for _ in lacking]
