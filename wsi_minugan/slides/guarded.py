"""A reader that gives up on a share that hangs."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.reader import SlideInfo, SlideReader


class GuardedReader:
    """Reads in a thread, and raises where a read takes too long; a hanging read cannot be stopped, only left behind.

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
        result: Future[NDArray[np.uint8]] = Future()
        # A daemon: a read that never returns must not keep the process from ending.
        threading.Thread(target=self._read, args=(level, box, result), daemon=True).start()
        try:
            return result.result(self._stall_s)
        except TimeoutError as e:
            raise SlideUnreadableError(
                f"{self.info.path} did not answer for {self._stall_s:g} s. Check the network share or drive, then "
                "take the failed slides again with: wsi-minugan retry OUT"
            ) from e

    def _read(self, level: int, box: Box, result: Future[NDArray[np.uint8]]) -> None:
        try:
            result.set_result(self._reader.read_level(level, box))
        except BaseException as e:  # noqa: BLE001 - handed on to the reading thread, whatever it is
            result.set_exception(e)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()
