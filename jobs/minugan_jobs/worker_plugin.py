"""The Dask plugin that a batch gives its workers: small for the client that sends it, and on a worker it loads what does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distributed import Worker, WorkerPlugin

from minugan_jobs.tasks import WORKER_STATE, Job, Outcome, Stage, StageRunner


class StagePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """Gives each worker what runs its stages, which a worker loads and a client does not.

    Parameters
    ----------
    name : str
        Its name on the workers. A scheduler that several runs share has one for each of them.
    network : Path, optional
        Socket of the process that runs the network for all workers; by default each has its own.
    """

    name = WORKER_STATE

    def __init__(self, name: str = WORKER_STATE, network: Path | None = None) -> None:
        self.name = name
        self._network = network
        self._runner: StageRunner | None = None

    def __reduce__(self) -> tuple[type[StagePlugin], tuple[str, Path | None]]:
        """Travel to a worker empty."""
        return StagePlugin, (self.name, self._network)

    def setup(self, worker: Worker) -> None:
        """Load what runs stages.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that holds this.
        """
        from minugan_jobs.worker import WorkerState

        state = WorkerState(self.name, self._network)
        state.setup(worker)
        self._runner = state

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        """Run one stage of a slide; see `StageRunner`.

        Parameters
        ----------
        stage : {"plan", "analyse", "merge", "write", "finish"}
            Which.
        job : Job
            The slide and the settings.
        blocks : sequence of int
            Indices.
        previous_key : str
            As a digest; for "plan" only.

        Returns
        -------
        Outcome
            What the stage tells the client.
        """
        assert self._runner is not None
        return self._runner.run(stage, job, blocks, previous_key)
