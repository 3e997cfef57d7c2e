"""Which files of a slide's folder this program writes, seals and may remove: what somebody else put there is never touched."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from wsi_minugan.errors import OutputError
from wsi_minugan.hashing import sha256_of
from wsi_minugan.outputs.atomic import SUFFIX, not_written
from wsi_minugan.outputs.manifest import MANIFEST, SCRATCH, read_manifest
from wsi_minugan.pipeline.areas import REGIONS
from wsi_minugan.segmentation.masks import layout
from wsi_minugan.syncing import sync

MITOSES = "mitoses.geojson"
STORE = "masks.zarr"
_FILES = ("count.json", MITOSES, REGIONS, "nuclei.parquet", "overview.png", "hotspot.jpg", "gallery.jpg")
_STORE_FOLDERS = tuple(f"{STORE}/{place}" for place in layout.PLACES)


def own_files(folder: Path) -> list[str]:
    """Return the files of a slide's results that this program wrote, by their paths below its folder, sorted.

    Parameters
    ----------
    folder : Path
        The slide's result folder.

    Returns
    -------
    list of str
        With forward slashes.
    """
    found = [
        name for name in (*_FILES, *(f"{STORE}/{m}" for m in layout.GROUPS)) if (folder / name).is_file()
    ]
    for place in _STORE_FOLDERS:
        inside = (p for p in (folder / place).rglob("*") if p.is_file() and p.suffix != SUFFIX)
        found += [p.relative_to(folder).as_posix() for p in inside]
    return sorted(found)


def own_bytes(folder: Path) -> int:
    """Return how much room this program's files in a slide's folder take.

    Parameters
    ----------
    folder : Path
        The slide's result folder.

    Returns
    -------
    int
        Bytes, scratch included.
    """
    scratch = (p for p in (folder / SCRATCH).rglob("*") if p.is_file())
    return sum(p.stat().st_size for p in (*(folder / name for name in own_files(folder)), *scratch))


def remove_own(folder: Path) -> str:
    """Remove this program's files from a slide's folder, and the folder if nothing else is in it.

    What somebody else put there stays. So does a `mitoses.geojson` that was corrected after it was sealed, under another name;
    a sentence then says so, which is else empty.

    Parameters
    ----------
    folder : Path
        The slide's result folder; it need not be there.

    Returns
    -------
    str
        The sentence.

    Raises
    ------
    OutputError
        If a file cannot be removed.
    """
    if not folder.is_dir():
        return ""
    try:
        told = _keep_correction(folder)
        # First, and on the disk before all else: what is half removed must never look finished.
        (folder / MANIFEST).unlink(missing_ok=True)
        sync(folder)
        for name in (*_FILES, *(f"{STORE}/{m}" for m in layout.GROUPS)):
            (folder / name).unlink(missing_ok=True)
        for name in (SCRATCH, *_STORE_FOLDERS):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder / name)
        remove_partial(folder)
        sync(folder)
    except OSError as e:
        raise OutputError(f"{folder} cannot be replaced: {e.strerror or e}. Remove it by hand.") from e
    for place in (folder / STORE / "labels", folder / STORE, folder):
        with suppress(OSError):  # somebody else's files are in it
            place.rmdir()
    return told


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left in a slide's folder: this program's temporary files and Zarr's.

    Parameters
    ----------
    folder : Path
        The slide's result folder.
    """
    inside = (p for place in _STORE_FOLDERS for p in (folder / place).rglob(f"*{SUFFIX}"))
    groups = (p for place in (folder / STORE, folder / STORE / "labels") for p in place.glob(f"*{SUFFIX}"))
    for path in (*folder.glob(f".*{SUFFIX}"), *groups, *inside):
        path.unlink(missing_ok=True)


def _keep_correction(folder: Path) -> str:
    """Give a sealed file of mitoses that was changed since another name, which no run will take, and tell of it."""
    path = folder / MITOSES
    try:
        sealed = read_manifest(folder).files.get(MITOSES, "")
        corrected = sealed != "" and path.is_file() and sha256_of(path) != sealed
        if not corrected or not isinstance(json.loads(path.read_bytes()), dict | list):
            return ""
    except (OutputError, ValueError):
        return ""
    number = 1
    while (kept := path.with_name(f"mitoses-corrected-{number}.geojson")).exists():
        number += 1
    try:
        path.rename(kept)
    except OSError as e:
        raise not_written(kept, e) from e
    return f"{path} was changed since the run, and is kept as {kept.name}."
