"""Which tasks take their workers with them: counted here, since a scheduler blames all that a worker had waiting, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from distributed import Client, Worker

_BEGUN = "minugan-begun"
LIMIT = 2
"""Workers that may die on a task before it is given up."""


def tell_begun(worker: Worker) -> None:
    """Tell clients, from a task, that it begins: a worker that dies has others waiting, which are not to blame.

    Parameters
    ----------
    worker : distributed.Worker
        The worker that the task runs on.
    """
    worker.log_event(_BEGUN, {"worker": worker.address, "task": worker.get_current_task()})


class WorkerFailures:
    """Counts the workers that died on each task, and has the scheduler not give it to a third.

    Parameters
    ----------
    client : distributed.Client
        Whose scheduler tells of workers that go.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._at: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        client.subscribe_topic(_BEGUN, self._begun)
        client.subscribe_topic("all", self._seen)

    def of(self, task: str) -> int:
        """Return how many workers died on a task.

        Parameters
        ----------
        task : str
            The task's key.

        Returns
        -------
        int
            How many workers.
        """
        return self._counts[task]

    def _begun(self, event: tuple[float, Any]) -> None:
        self._at[event[1]["worker"]] = event[1]["task"]

    async def _seen(self, event: tuple[float, Any]) -> None:
        what = event[1]
        if what.get("action") != "remove-worker":
            return
        begun, assigned = self._at.pop(what["worker"], ""), tuple(what["processing-tasks"])
        if len(assigned) == 1:
            begun = assigned[0]
        # Where death was faster than the word that a task begins, none is to blame for sure: the scheduler's own limit holds.
        if what["expected"] or begun not in assigned:
            return
        self._counts[begun] += 1
        if self._counts[begun] == LIMIT - 1:
            await self._client.run_on_scheduler(_last_chance(), task=begun)

    def close(self) -> None:
        """Listen no more: a scheduler that others run would complain of a listener that is gone."""
        if self._client.status == "running":
            for topic in (_BEGUN, "all"):
                self._client.unsubscribe_topic(topic)


def _last_chance() -> Callable[..., None]:
    """Return what makes the scheduler give a task up when one more worker dies on it."""

    # A function inside another travels with its code: the scheduler may lack this package.
    def last_chance(task, dask_scheduler):  # type: ignore[no-untyped-def]
        state = dask_scheduler.tasks.get(task)
        if state is not None:
            state.suspicious = max(state.suspicious, dask_scheduler.allowed_failures)

    return last_chance
