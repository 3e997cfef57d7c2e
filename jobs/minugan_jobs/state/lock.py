"""One run per output folder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock

from wsi_minugan.errors import LockedError, MinuganError, OutputError
from wsi_minugan.outputs.atomic import write_text

LOCK, OWNER = ".lock", ".lock-owner.json"
log = logging.getLogger(__name__)

_GLANCE_S = 0.5
"""Who looks whether the lock is held (`held`) holds it for that moment, and must not have a run refused."""


@contextmanager
def hold(out: Path) -> Iterator[str | None]:
    """Hold an output folder; yields a sentence about a dead owner whose lock was taken over, or None.

    The operating system drops the lock when its process ends, however it ends; the owner's file only says who it is.

    Parameters
    ----------
    out : Path
        Output folder.

    Yields
    ------
    str or None
        The sentence.

    Raises
    ------
    LockedError
        If a live process holds it.
    OutputError
        If the folder cannot be written.
    """
    lock = filelock.FileLock(out / LOCK)
    try:
        lock.acquire(timeout=_GLANCE_S, poll_interval=_GLANCE_S / 10)
    except filelock.Timeout as e:
        raise LockedError(
            f"{out} is in use by another run ({owner(out) or 'unknown'}). Wait for it, stop it, or choose another folder."
        ) from e
    except OSError as e:
        raise OutputError(
            f"{out} cannot be written: {e.strerror or e}. Choose a folder you may write to."
        ) from e
    try:
        before = owner(out)
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_text(out / OWNER, json.dumps(me) + "\n")
        try:
            yield (
                f"The run before this one ended without notice ({before}). This run takes over its lock."
                if before
                else None
            )
        except MinuganError:
            # A run that was refused said why: that is no end without notice.
            (out / OWNER).unlink(missing_ok=True)
            raise
        (out / OWNER).unlink(missing_ok=True)
    finally:
        lock.release()


def held(out: Path) -> bool:
    """Return whether a live process holds an output folder; needs no more than to read it.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    bool
        Whether a live process holds it.
    """
    try:
        descriptor = os.open(out / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def owner(out: Path) -> str | None:
    """Return in words who holds, or last held, an output folder.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    str or None
        Process, user and machine; None where nobody is known.
    """
    try:
        content = json.loads((out / OWNER).read_text("utf-8"))
        return f"host {content['host']}, process {content['pid']}, since {content['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
