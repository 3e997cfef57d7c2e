"""Open files: every worker takes some in this process, and where there are too few Dask waits for ever."""

from __future__ import annotations

import math
import resource

from wsi_minugan.errors import SettingsError
from wsi_minugan.words import pluralize

PER_WORKER = 12
"""Descriptors that this process has open for each worker: its pipes and connections (11 were counted)."""
_OWN = 64
"""What this process needs besides: scheduler, ledger, log, locks, slides that are copied (23 were counted)."""
_WANTED = 4096
"""What workers inherit, for slides of many files."""


def provide_descriptors(workers: int) -> None:
    """Raise this process's limit of open files as far as its workers need it.

    Parameters
    ----------
    workers : int
        How many there will be.

    Raises
    ------
    SettingsError
        If the system does not allow so many.
    """
    soft, hard = (_number(v) for v in resource.getrlimit(resource.RLIMIT_NOFILE))
    needed = _OWN + PER_WORKER * workers
    wanted = min(hard, max(needed, _WANTED))
    if soft < wanted:
        try:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (int(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
            soft = wanted
        except (OSError, ValueError):
            pass  # a system may allow less than it says
    if soft < needed:
        raise SettingsError(
            f"{pluralize(workers, 'worker')} need about {needed} open files, and this process may have {soft:.0f}. Give fewer --workers, "
            "or raise the limit: ulimit -n in a shell, LimitNOFILE= in a systemd unit."
        )


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit
