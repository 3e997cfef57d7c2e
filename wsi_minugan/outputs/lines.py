"""Files of lines that grow as a program runs."""

from __future__ import annotations

import os
from typing import BinaryIO

_PART_BYTES = 4096


def cut_broken_line(file: BinaryIO) -> None:
    """Cut off a last line that a kill, a power cut or a full disk broke, so that the next one is not glued to it.

    Parameters
    ----------
    file : binary file
        Open for reading and writing; its position changes.
    """
    end = whole = file.seek(0, os.SEEK_END)
    while whole:
        start = max(0, whole - _PART_BYTES)
        file.seek(start)
        newline = file.read(whole - start).rfind(b"\n")
        if newline >= 0:
            whole = start + newline + 1
            break
        whole = start
    if whole < end:
        file.truncate(whole)
