"""Signals that ask a run to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)


class _Stopped(BaseException):
    """A signal that breaks off what waits, and would look for it too late or never."""


class StopRequest:
    """Whether a signal asked to stop, and which.

    Attributes
    ----------
    signal : int or None
        Its number.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._breaks_off = False

    def asked(self) -> bool:
        """Return whether a signal asked to stop.

        Returns
        -------
        bool
            True from the first signal on.
        """
        return self.signal is not None

    def take(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; a second one ends the process at once.

        Parameters
        ----------
        number : int
            Of the signal.
        frame : FrameType, optional
            Where the process was.
        """
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        if self._breaks_off:
            self._breaks_off = False
            raise _Stopped

    @contextmanager
    def breaks_off(self) -> Iterator[None]:
        """Leave the block at once when a signal comes: a cluster that starts, or a drive that hangs, may never end by itself.

        Yields
        ------
        None
            Nothing.
        """
        self._breaks_off = True
        try:
            yield
        except _Stopped:
            log.info("Stopped by signal %s before the work began.", self.signal)
        finally:
            self._breaks_off = False

    @contextmanager
    def is_looked_for(self) -> Iterator[None]:
        """Wait in the block until somebody asks for the signal, so that what goes on there ends in order.

        Yields
        ------
        None
            Nothing.
        """
        self._breaks_off = False
        yield


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one ends the process at once.

    Yields
    ------
    StopRequest
        What the signals ask.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop.take) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
