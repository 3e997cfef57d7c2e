"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_minugan.errors import OutputError

SUFFIX = ".partial"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; when the block ends well, that file is synced to disk and takes its place.

    Raises
    ------
    OutputError
        If the folder does not take the file.
    """
    # The process is in the name, so that two writers of one file cannot spoil each other's.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as e:
        raise OutputError(
            f"{path} cannot be written: {e.strerror or e}. Check that the folder is writable and its disk not full."
        ) from e
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file; see `atomic_path`."""
    write_bytes(path, text.encode())


def remove_partial(folder: Path) -> None:
    """Remove what killed writers left in a folder of ours (our own and Zarr's temporary files)."""
    for path in folder.rglob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
