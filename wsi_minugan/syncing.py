"""Having the system write to its disk what a power cut would else take."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""What some network drives say of a folder, and folders that may be written and not read; their files are synced all the same."""


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to its disk.

    Parameters
    ----------
    path : Path
        A file or a folder.

    Raises
    ------
    OSError
        If it cannot be written; a folder that cannot be synced by itself is left to its system.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as e:
        if e.errno not in _CANNOT or not path.is_dir():
            raise
