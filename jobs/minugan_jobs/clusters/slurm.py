"""Jobs that a batch system does not take: their cause reaches the user, and the cluster can still be closed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from distributed.core import Status

log = logging.getLogger(__name__)

_AGAIN_S = 60.0


class Submissions:
    """How the submission of a cluster's jobs went.

    Attributes
    ----------
    taken : int
        Jobs that the batch system took.
    refusal : str
        Its last words on a job that it did not take; empty where it took all.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.refusal = ""

    @property
    def hopeless(self) -> bool:  # numpydoc ignore=RT01
        """Whether no job was ever taken, and some were refused."""
        return self.taken == 0 and self.refusal != ""

    def refused(self, error: Exception) -> None:
        """Take note of a job that was not taken, and tell it where others were.

        Parameters
        ----------
        error : Exception
            What the batch system's command ended with.
        """
        said = str(error).rpartition("stderr:")[2]
        self.refusal = " ".join(said.split()) or type(error).__name__
        if self.taken:
            log.warning(
                "The batch system did not take a job: %s. It is tried again every %.0f s.",
                self.refusal,
                _AGAIN_S,
            )


def telling_job(job: type[Any], submissions: Submissions) -> type[Any]:
    """Return a class of jobs, as that of dask-jobqueue given, that tells how its submission went instead of raising.

    Parameters
    ----------
    job : type
        A class of jobs of dask-jobqueue.
    submissions : Submissions
        Who is told.

    Returns
    -------
    type
        The class with submissions that do not raise.
    """

    class TellingJob(job):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
                submissions.taken += 1
            except (OSError, RuntimeError, ValueError) as e:
                submissions.refused(e)
                # Raised, it would end in Dask's log, with a worker that is waited for and cannot be closed.
                self.status = Status.running
                asyncio.get_running_loop().call_later(_AGAIN_S, self._forget)

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

        def _forget(self) -> None:
            """Leave the cluster, which then asks for another job where it still needs one."""
            cluster = self._cluster()
            if cluster is not None and cluster.workers.get(self.name) is self:
                self.status = Status.closed
                del cluster.workers[self.name]
                cluster.worker_spec.pop(self.name, None)

    return TellingJob
