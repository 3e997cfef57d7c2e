"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsi_minugan.errors import DiskFullError, OutputError
from wsi_minugan.syncing import sync

SUFFIX = ".partial"


@contextmanager
def atomic_path(path: Path, parents: bool = True) -> Iterator[Path]:
    """Write a file whole or not at all: under a temporary name first, which takes the place of `path` when the block ends well.

    Both the file and its name are synced to disk. When the block fails, `path` is as it was, and the temporary file is gone.

    Parameters
    ----------
    path : Path
        File to write.
    parents : bool
        Whether to make the folders it lies in. Results must not: a user who removes a run's folder while it runs does not want it back.

    Yields
    ------
    Path
        The temporary file to write, in the same folder.

    Raises
    ------
    OutputError
        If the folder does not take the file; a `DiskFullError` where the disk is full.

    Examples
    --------
    >>> with atomic_path(Path("OUT/count.json")) as temporary:  # doctest: +SKIP
    ...     temporary.write_text("{}")
    """
    # The process is in the name, so that two writers of one file cannot spoil each other's.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as e:
        raise not_written(path, e) from e
    finally:
        # A folder that took no file has none to remove, and may not even say so; the reason was told above.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def not_written(path: Path, error: OSError) -> OutputError:
    """Return the error for a file that its folder did not take; that the disk is full is no wrong use.

    Parameters
    ----------
    path : Path
        File that was to be written, for the message.
    error : OSError
        What the system said.

    Returns
    -------
    OutputError
        A `DiskFullError` where the disk or the quota is full.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(
            f"{path} cannot be written: {error.strerror}. Free some space there. Then run the same command again to resume."
        )
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}. Check that the folder is writable and its disk not full."
    )


def write_bytes(path: Path, data: bytes, parents: bool = False) -> None:
    """Write a whole file; see `atomic_path`.

    Parameters
    ----------
    path : Path
        File to write.
    data : bytes
        Content of the file.
    parents : bool
        Whether missing folders are made.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(path, parents) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, parents: bool = False) -> None:
    """Write a whole UTF-8 file; see `atomic_path`.

    Parameters
    ----------
    path : Path
        File to write.
    text : str
        Content of the file.
    parents : bool
        Whether missing folders are made.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_bytes(path, text.encode(), parents)
