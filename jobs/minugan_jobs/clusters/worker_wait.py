"""Work without workers: told to the user, since to wait may be right, or be for ever."""

from __future__ import annotations

import logging
import time

from distributed import Client

from wsi_minugan.errors import SettingsError

log = logging.getLogger(__name__)

_FIRST_S, _AGAIN_S = 60.0, 300.0


PATIENCE_S = 90.0
"""How long work waits for a worker with a GPU where others could do it."""


class Waiting:
    """Watches over how long there has been work and no worker.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    """

    def __init__(self, client: Client) -> None:
        self._address = client.scheduler.address
        self._cluster = client.cluster
        self._since: float | None = None
        self._tell_s = 0.0

    def check(self, workers: int, tasks: int, kind: str = "worker") -> float:
        """Take note of how many workers and tasks there are now, tell the user of a long wait, and return for how long it goes.

        Parameters
        ----------
        workers : int
            Those that can do the tasks.
        tasks : int
            What there is to do.
        kind : str
            What the tasks wait for, in words.

        Returns
        -------
        float
            How long the wait has gone on, s.

        Raises
        ------
        SettingsError
            If a batch system takes none of the cluster's jobs.
        """
        submissions = getattr(self._cluster, "submissions", None)
        if submissions is not None and submissions.hopeless:
            raise SettingsError(
                f"The batch system takes no job of this cluster: {submissions.refusal}. "
                "Check 'options' in the cluster file (queue, account, memory, walltime)."
            )
        now = time.monotonic()
        if workers or not tasks:
            self._since = None
            return 0.0
        if self._since is None:
            self._since, self._tell_s = now, now + _FIRST_S
        elif now >= self._tell_s:
            self._tell_s = now + _AGAIN_S
            log.warning("No %s for %.0f s. %s", kind, now - self._since, self._advice())
        return now - self._since

    def _advice(self) -> str:
        if self._cluster is None:
            return (
                f"Start some for the scheduler at {self._address}: dask worker {self._address} --nthreads 1. "
                "If they run already, look at their log and the firewall."
            )
        if hasattr(self._cluster, "submissions"):
            return "Look at the queue (squeue --me) and at the jobs' output in 'log_directory' of the cluster file."
        return "Look at the workers' log and the memory of their machines."
