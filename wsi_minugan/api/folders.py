"""Folders that results lie in: the user's own, or temporary ones that go with the last thing that needs them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from wsi_minugan.errors import OutputError


class ResultFolder:
    """A slide's result folder.

    Parameters
    ----------
    path : Path
        The folder.
    temporary : bool
        Whether it is removed when nothing refers to this object any more, and at the end of the program.
    """

    def __init__(self, path: Path, temporary: bool = False) -> None:
        self.path = path
        self.temporary = temporary
        if temporary:
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)

    def __reduce__(self) -> tuple[type[ResultFolder], tuple[Path]]:
        """Travel to another process as a plain folder: only its maker removes it."""
        return ResultFolder, (self.path,)


def temporary_folder() -> ResultFolder:
    """Return a new temporary folder.

    Returns
    -------
    ResultFolder
        It is removed when nothing refers to it any more.

    Raises
    ------
    OutputError
        If the disk for temporary files cannot be written.
    """
    try:
        return ResultFolder(Path(tempfile.mkdtemp(prefix="wsi-minugan-")), temporary=True)
    except OSError as e:
        raise OutputError(
            f"No temporary folder can be made in {tempfile.gettempdir()}: {e.strerror or e}. Free some space, or give `out`."
        ) from e


def empty_folder(path: Path) -> ResultFolder:
    """Return a folder of the user's, made if missing.

    Parameters
    ----------
    path : Path
        Where the results go.

    Returns
    -------
    ResultFolder
        It stays.

    Raises
    ------
    OutputError
        If it holds something, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise OutputError(f"The folder {path} is not empty. Name a new one, or open it with Result.open.")
    except OSError as e:
        raise OutputError(f"The folder {path} cannot be used: {e.strerror or e}. Choose another.") from e
    return ResultFolder(path)
