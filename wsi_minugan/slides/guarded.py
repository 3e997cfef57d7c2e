"""Giving up on a share that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wsi_minugan.errors import RETRY, SlideUnreadableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsi_minugan.geometry import Box
    from wsi_minugan.slides.reader import SlideInfo, SlideReader

T = TypeVar("T")


def within(stall_s: float, path: Path, work: Callable[[], T]) -> T:
    """Do what reads a file in a thread, and raise where it takes too long; a hanging read cannot be stopped, only left behind.

    Parameters
    ----------
    stall_s : float
        Longest time it may take.
    path : Path
        The file, for the message.
    work : callable
        What to do.

    Raises
    ------
    SlideUnreadableError
        If the file does not answer in time.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as e:  # noqa: BLE001 - handed on to the waiting thread, whatever it is
            result.set_exception(e)

    # A daemon: a read that never returns must not keep the process from ending.
    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(stall_s)
    except TimeoutError as e:
        if result.done():
            raise  # the work's own
        raise SlideUnreadableError(
            f"{path} did not answer for {stall_s:g} s. Check the network share or drive, then "
            f"take the failed slides again with: {RETRY}"
        ) from e


class GuardedReader:
    """Gives up a read that hangs; see `within`.

    Parameters
    ----------
    reader : SlideReader
        The reader.
    stall_s : float
        Longest time for one read.
    """

    def __init__(self, reader: SlideReader, stall_s: float) -> None:
        self._reader = reader
        self._stall_s = stall_s

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        return self._reader.info

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region; see `SlideReader.read_level`.

        Raises
        ------
        SlideUnreadableError
            If the file does not answer in time.
        """
        return within(self._stall_s, self.info.path, lambda: self._reader.read_level(level, box))

    def close(self) -> None:
        """Release the file."""
        self._reader.close()
