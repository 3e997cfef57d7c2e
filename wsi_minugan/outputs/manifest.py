"""manifest.json: sealing a slide's folder, and checking the seal."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.atomic import sync, write_text
from wsi_minugan.outputs.models import Manifest

MANIFEST = "manifest.json"
_MASKS = "masks.zarr/"


def digests(folder: Path) -> dict[str, str]:
    """Return SHA-256 of every file below a slide's folder but the manifest and hidden scratch, sorted by path."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST and not name.startswith("."):
            found[name] = _sha256(path)
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest; with it the slide is finished, and all that it lists is on the disk, not in its cache."""
    files = [folder / name for name in manifest.files]
    for path in [*files, *{parent for f in files for parent in f.parents if parent.is_relative_to(folder)}]:
        sync(path)
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    sync(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read a slide's manifest.

    Raises
    ------
    OutputError
        If it is missing or not a manifest.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as e:
        raise OutputError(
            f"{folder} holds no finished result (no readable {MANIFEST}). Run the slide again."
        ) from e


def is_whole(folder: Path) -> bool:
    """Return whether a slide's folder is sealed and lacks nothing: all files there, and unchanged but for masks, which `verify` reads."""
    try:
        listed = read_manifest(folder).files
    except OutputError:
        return False
    there = all((folder / name).is_file() for name in listed)
    return there and all(
        _sha256(folder / name) == digest for name, digest in listed.items() if not name.startswith(_MASKS)
    )


def verify(folder: Path) -> list[str]:
    """Return a sentence for each file of a slide that is missing, changed or not listed."""
    listed = read_manifest(folder).files
    problems = []
    for name, digest in listed.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            problems.append(f"{name}: lies outside the slide's folder")
        elif not path.is_file():
            problems.append(f"{name}: missing")
        elif _sha256(path) != digest:
            problems.append(f"{name}: changed since the run")
    return problems + [
        f"{name}: not listed in the manifest" for name in digests(folder) if name not in listed
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
