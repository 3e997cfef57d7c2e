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

STALL_S = 60.0
"""Longest time that a file may take to answer, where no setting says another."""

_AFTER_A_STALL_S = 1.0
"""Of a folder in which a file hung, most often all do: a series of a hundred must not take an hour to be listed."""


def within(stall_s: float, path: Path, work: Callable[[], T]) -> T:
    """Do what reads a file in a thread, and raise where it takes too long; a hanging read cannot be stopped, only left behind.

    Parameters
    ----------
    stall_s : float
        Longest time it may take, in seconds.
    path : Path
        The file, for the message.
    work : callable
        Takes nothing, reads the file, and returns what was read.

    Returns
    -------
    whatever `work` returns
        What was read. Errors that `work` raises are raised here.

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
        raise _no_answer(path, stall_s) from e


def _no_answer(path: Path, stall_s: float) -> SlideUnreadableError:
    return SlideUnreadableError(
        f"{path} did not answer for {stall_s:g} s. Check the network share or drive, then "
        f"take the failed slides again with: {RETRY}"
    )


class StallGuard:
    """Asks files that may hang, and waits less for those of a folder in which one hung, until one answers.

    Whoever asks again and again, as a watch does, does not wait again for a file that has not answered yet, nor leave another
    thread behind for each time.

    Parameters
    ----------
    stall_s : float
        Longest wait for one answer.
    """

    def __init__(self, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self._asked: set[Path] = set()
        self._stalled: set[Path] = set()

    def ask(self, path: Path, work: Callable[[], T]) -> T:
        """Return what `work` finds of a file or folder; its own errors pass.

        Parameters
        ----------
        path : Path
            The file or folder.
        work : callable
            What to ask.

        Returns
        -------
        whatever `work` returns
            In time.

        Raises
        ------
        SlideUnreadableError
            If it does not answer in time, or has not answered an earlier question yet.
        """

        def answer() -> T:
            try:
                return work()
            finally:
                self._asked.discard(path)

        wait_s = min(self._stall_s, _AFTER_A_STALL_S) if path.parent in self._stalled else self._stall_s
        if path in self._asked:
            raise _no_answer(path, wait_s)
        self._asked.add(path)
        try:
            found = within(wait_s, path, answer)
        except SlideUnreadableError:
            if path in self._asked:
                self._stalled.add(path.parent)
            raise
        self._stalled.discard(path.parent)
        return found


class GuardedReader:
    """A reader that gives up a read that hangs; see `within`.

    Parameters
    ----------
    reader : SlideReader
        The reader that does the reading.
    stall_s : float
        Longest time for one read, in seconds.
    """

    def __init__(self, reader: SlideReader, stall_s: float) -> None:
        self._reader = reader
        self._stall_s = stall_s
        self._reads, self._closed = 0, False
        self._change = threading.Lock()

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide.

        Returns
        -------
        SlideInfo
            Read when the slide was opened.
        """
        return self._reader.info

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return a region; see `SlideReader.read_level`.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.

        Raises
        ------
        SlideUnreadableError
            If the file does not answer in time.
        """
        return self._within(lambda: self._reader.read_level(level, box))

    def holds(self, level: int, box: Box) -> bool:
        """Return whether all of a region is stored; see `SlideReader.holds`.

        Parameters
        ----------
        level : int
            Level of the pyramid.
        box : Box
            Region, in the level's px.

        Returns
        -------
        bool
            False where a tile of it has no data.

        Raises
        ------
        SlideUnreadableError
            If the file does not answer in time.
        """
        return self._within(lambda: self._reader.holds(level, box))

    def missing(self, level: int) -> list[Box]:
        """Return the tiles without data; see `SlideReader.missing`.

        Parameters
        ----------
        level : int
            Level of the pyramid.

        Returns
        -------
        list of Box
            In the level's px.
        """
        return self._reader.missing(level)

    def _within(self, work: Callable[[], T]) -> T:
        def counted() -> T:
            try:
                return work()
            finally:
                self._note(reads=-1)

        self._note(reads=1)
        return within(self._stall_s, self.info.path, counted)

    def close(self) -> None:
        """Release the file; where a read still hangs, once it has come back: OpenSlide would crash the process else."""
        self._note(closing=True)

    def _note(self, reads: int = 0, closing: bool = False) -> None:
        with self._change:
            self._reads += reads
            self._closed = self._closed or closing
            over = self._closed and self._reads == 0
        if over:
            self._reader.close()
