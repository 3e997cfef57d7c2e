"""What goes between a batch and its workers: a slide's job, its stages, and what comes of them.

Whoever hands out work needs this alone. A worker does it in `minugan_jobs.worker`, which takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from distributed import get_worker

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput

Stage = Literal["check", "plan", "analyse", "merge", "write", "finish"]
WORKER_STATE = "minugan-worker-state"


@dataclass(frozen=True)
class Job:
    """One slide's work, small enough to travel with every task.

    Attributes
    ----------
    slide : SlideInput
        The slide.
    folder : Path
        ``OUT/SLIDE_ID``.
    settings : RunSettings
        The run's settings.
    model : Path
        The bundle's folder.
    request : str
        Digest of what is asked for, whatever the slide's content.
    worker_state : str
        Name of the worker state that it is done with; see `WorkerState`.
    """

    slide: SlideInput
    folder: Path
    settings: RunSettings
    model: Path
    request: str
    worker_state: str = WORKER_STATE


@dataclass(frozen=True)
class Planned:
    """What a plan found.

    Attributes
    ----------
    key : str
        Digest of slide, settings and model.
    order : tuple of int
        The blocks in the order in which they are best analysed.
    state : {"new", "resumed", "done"}
        Whether earlier work under this key is there.
    whole : mapping of str to tuple of int
        Of resumed work, by stage: the blocks whose files are all there as they were written.
    note : str
        What to tell the user of the slide's earlier results; mostly empty.
    """

    key: str
    order: tuple[int, ...]
    state: Literal["new", "resumed", "done"]
    whole: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    note: str = ""

    @property
    def blocks(self) -> int:
        """Number of blocks.

        Returns
        -------
        int
            1 or more.
        """
        return len(self.order)


@dataclass(frozen=True)
class Outcome:
    """What a stage hands back: small, whatever the slide.

    Attributes
    ----------
    seconds : float
        Time it took.
    patches : int
        Patches that went through the network.
    tissue_mm2 : float
        Area analysed.
    planned : Planned or None
        After "plan".
    row : SlideState or None
        After "finish".
    """

    seconds: float
    patches: int = 0
    tissue_mm2: float = 0.0
    planned: Planned | None = None
    row: SlideState | None = None


class StageRunner(Protocol):
    """What runs stages; the engine knows nothing of slides."""

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        """Run one stage; `blocks` are the blocks that it shall do, `previous_key` the key of earlier work ("plan" only).

        Parameters
        ----------
        stage : {"plan", "analyse", "merge", "write", "finish"}
            Which.
        job : Job
            The slide and the settings.
        blocks : sequence of int
            Indices.
        previous_key : str
            As a digest.
        """


def run_stage(stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
    """Run one stage on the worker that executes this task.

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
    worker_state: StageRunner = get_worker().plugins[job.worker_state]
    return worker_state.run(stage, job, blocks, previous_key)
