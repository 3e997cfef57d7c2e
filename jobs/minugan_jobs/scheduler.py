"""The engine: hands out stages of slides to Dask as workers take them, and keeps the ledger.

Never more than a window of tasks is with the scheduler, so neither it nor this process grows with the batch. While one slide
ends, blocks of the next already run.
"""

from __future__ import annotations

import logging
import math
import queue
import shlex
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from distributed import Client, Future, KilledWorker

from minugan_jobs.clusters import worker_wait
from minugan_jobs.clusters.worker_failures import LIMIT, WorkerFailures
from minugan_jobs.clusters.worker_wait import Waiting
from minugan_jobs.staging import Staging
from minugan_jobs.state.ledger import Ledger, SlideRecord
from minugan_jobs.state.output_folder import unnamed
from minugan_jobs.tasks import Job, Outcome, Stage, run_stage
from wsi_minugan.errors import RETRY, ClusterError, MinuganError
from wsi_minugan.slides.files import file_state
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.words import pluralize

log = logging.getLogger(__name__)

TASKS_PER_WORKER = 3
_WRITTEN_AT_ONCE = 8
"""Blocks that one task writes at most: writing one takes little more than the handing out of a task."""
_POLL_S = 0.5
_COUNT_WORKERS_S = 5.0
_STATE_S = 5.0
"""Longest wait for the state of a failed slide's file: while this process waits, no worker gets more."""

_ORDER: tuple[Stage, ...] = ("check", "plan", "analyse", "merge", "write", "finish")
_BLOCKWISE = {"analyse", "write"}
_NETWORK = {"check", "plan", "analyse"}
"""Stages that run the network, or settle its arithmetic."""
_Blocks = tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """Something that happened to a slide.

    Attributes
    ----------
    kind : {"started", "planned", "block", "done", "kept", "failed"}
        What; "kept" is a finished slide that could not be looked at again, and whose results stay.
    slide_id : str
        Which slide.
    blocks : int
        After "planned": blocks that are left to analyse.
    outcome : Outcome or None
        After "block" and "done".
    error, details : str
        After "failed" and "kept": a sentence for the user, and for an unexpected error its traceback.
    """

    kind: Literal["started", "planned", "block", "done", "kept", "failed"]
    slide_id: str
    blocks: int = 0
    outcome: Outcome | None = None
    error: str = ""
    details: str = ""


class Observer(Protocol):
    """Who wants to know: progress, log."""

    def __call__(self, event: Event) -> None:
        """Take note."""


@dataclass
class _SlideRun:
    """A slide on its way through the stages."""

    job: Job
    previous_key: str
    origin: str = ""
    stage: Stage = "plan"
    waiting: deque[_Blocks] = field(default_factory=lambda: deque([(0,)]))
    running: dict[_Blocks, Future] = field(default_factory=dict)
    order: tuple[int, ...] = ()

    @property
    def slide_id(self) -> str:
        return self.job.slide.slide_id


class Engine:
    """Runs one batch on one client.

    Parameters
    ----------
    client : distributed.Client
        Where tasks go.
    ledger : Ledger
        Batch state.
    staging : Staging
        The batch's slides.
    make_job : callable
        From a slide's record to its job.
    observe : Observer
        Called for every event, in this thread.
    stopped : callable
        Whether to hand out no more work and to return.

    Raises
    ------
    ClusterError
        From `run`, if the scheduler is gone; slides on their way stay "running" in the ledger.
    SettingsError
        From `run`, if a batch system takes none of the cluster's jobs.
    """

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        staging: Staging,
        make_job: Callable[[SlideRecord], Job],
        observe: Observer,
        stopped: Callable[[], bool],
    ) -> None:
        self._client = client
        self._address = client.scheduler.address
        self._worker_failures, self._waiting = WorkerFailures(client), Waiting(client)
        self._guard = StallGuard(_STATE_S)
        self._ledger = ledger
        self._staging = staging
        self._make_job = make_job
        self._observe = observe
        self._stopped = stopped
        self._active: list[_SlideRun] = []
        self._finished: queue.SimpleQueue[tuple[_SlideRun, Stage, _Blocks, Future]] = queue.SimpleQueue()
        self._in_flight = 0
        self._workers, self._gpus = 1, False
        self._counted_s = -math.inf

    def run(self) -> None:
        """Take slides through all stages, in order, until none is left or a stop is asked for."""
        try:
            self._run()
        finally:
            self._worker_failures.close()

    def _run(self) -> None:
        while not self._stopped():
            self._hand_out()
            if self._in_flight == 0 and self._staging.exhausted:
                return
            self._collect()
        self._cancel_all()

    def _hand_out(self) -> None:
        if time.monotonic() - self._counted_s > _COUNT_WORKERS_S:
            self._count_workers()
        # With many workers by handfuls: a message to the scheduler costs it as much as a task.
        least = max(1, self._workers // 2)
        while (free := TASKS_PER_WORKER * self._workers - self._in_flight) >= least:
            slide = next((s for s in self._active if s.waiting), None) or self._open_next()
            if slide is None:
                return
            self._submit(slide, [slide.waiting.popleft() for _ in range(min(free, len(slide.waiting)))])

    def _count_workers(self) -> None:
        self._check_scheduler()
        workers = self._client.scheduler_info(n_workers=-1).get("workers", {}).values()
        # It may have gone during the question, which then has no answer.
        self._check_scheduler()
        self._workers = max(1, sum(w["nthreads"] for w in workers))
        self._look_for_gpus(sum(bool(w["resources"].get("GPU")) for w in workers), len(workers))
        self._counted_s = time.monotonic()

    def _look_for_gpus(self, gpus: int, workers: int) -> None:
        """Give the network's work to GPUs once there are any; to the others again when all of these have been gone for a while."""
        self._gpus = self._gpus or gpus > 0
        bound = [(s, b) for s in self._active if s.stage in _NETWORK for b in s.running] if self._gpus else []
        if not bound or not workers:
            self._waiting.check(workers, self._in_flight)
            return
        waited_s = self._waiting.check(gpus, len(bound), "worker with a GPU")
        cpu_may = all(slide.job.settings.device != "cuda" for slide, _ in bound)
        if waited_s < worker_wait.PATIENCE_S or not cpu_may:
            return
        log.warning("The workers with a GPU are gone: %s goes on without one, and takes longer.", _of(bound))
        self._gpus = False
        for slide, blocks in bound:
            slide.running.pop(blocks).cancel()
            slide.waiting.appendleft(blocks)

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"The Dask scheduler at {self._address} is gone. Start it and its workers, then run the same command again "
            "to resume."
        )

    def _open_next(self) -> _SlideRun | None:
        while (staged := self._staging.take()) is not None:
            record = staged.record
            slide = _SlideRun(self._make_job(record), record.key, staged.origin)
            self._active.append(slide)
            if record.status == "done":
                slide.stage = "check"  # it stays done until its work is begun anew
            else:
                self._begin(slide)
            if not staged.error:
                return slide
            self._fail(slide, staged.error, "")
        return None

    def _begin(self, slide: _SlideRun) -> None:
        slide.stage, slide.waiting = "plan", deque([(0,)])
        self._ledger.begin(slide.slide_id, slide.job.request)
        self._observe(Event("started", slide.slide_id))

    def _submit(self, slide: _SlideRun, tasks: Sequence[_Blocks]) -> None:
        stage = slide.stage
        # Stages that end a slide go before new blocks: they free its scratch.
        futures = self._client.map(
            run_stage,
            [stage] * len(tasks),
            [slide.job] * len(tasks),
            tasks,
            [slide.previous_key] * len(tasks),
            pure=False,
            priority=_ORDER.index(stage),
            # Where some workers have a GPU, only these run the network, and settle its arithmetic; the others do the rest.
            resources={"GPU": 1} if stage in _NETWORK and self._gpus else None,
        )
        for blocks, future in zip(tasks, futures, strict=True):
            self._expect(slide, stage, blocks, future)

    def _expect(self, slide: _SlideRun, stage: Stage, blocks: _Blocks, future: Future) -> None:
        slide.running[blocks] = future
        self._in_flight += 1
        future.add_done_callback(lambda f: self._finished.put((slide, stage, blocks, f)))

    def _collect(self) -> None:
        """Take what has ended; waits a moment for the first."""
        try:
            items = [self._finished.get(timeout=_POLL_S)]
        except queue.Empty:
            return
        while not self._finished.empty():
            items.append(self._finished.get())
        for slide, stage, blocks, future in items:
            self._in_flight -= 1
            # What was taken back from a worker that is gone has ended, too, and is on its way again.
            if slide in self._active and slide.running.get(blocks) is future:
                slide.running.pop(blocks)
                self._take(slide, stage, blocks, future)

    def _take(self, slide: _SlideRun, stage: Stage, blocks: _Blocks, future: Future) -> None:
        if future.status == "finished":
            self._advance(slide, stage, blocks, future.result())
        elif future.status in {"lost", "pending"}:
            # Its worker died between the end of the task and this moment: Dask runs it again by itself.
            self._expect(slide, stage, blocks, future)
        elif future.status == "cancelled":
            # Not by this engine, which forgets the slide first: Dask cancels all tasks of a scheduler that was lost or restarted.
            raise self._gone()
        else:
            self._fail(slide, *_why(slide, stage, blocks, future, self._worker_failures.of(future.key)))

    def _advance(self, slide: _SlideRun, stage: Stage, blocks: _Blocks, outcome: Outcome) -> None:
        if stage == "check":
            self._checked(slide, outcome)
        elif stage == "plan":
            self._planned(slide, outcome)
        elif stage == "finish":
            self._done(slide, outcome)
        else:
            self._ledger.blocks_ended(slide.slide_id, stage, blocks, outcome.patches, outcome.seconds)
            if stage == "analyse":
                self._observe(Event("block", slide.slide_id, outcome=outcome))
            if not slide.waiting and not slide.running:
                self._next_stage(slide)

    def _checked(self, slide: _SlideRun, outcome: Outcome) -> None:
        if outcome.planned is not None and outcome.planned.state == "done":
            self._leave(slide, Event("done", slide.slide_id, outcome=outcome))
        else:
            self._begin(slide)

    def _leave(self, slide: _SlideRun, event: Event) -> None:
        """Be done with a slide, and tell."""
        self._active.remove(slide)
        self._staging.release(slide.slide_id)
        self._observe(event)

    def _planned(self, slide: _SlideRun, outcome: Outcome) -> None:
        planned = outcome.planned
        if planned is None:
            raise RuntimeError("a plan ended without a plan")
        if planned.state == "done":
            self._done(slide, outcome)
            return
        if planned.note:
            log.warning(planned.note)
        slide.order = planned.order
        kept = planned.whole if planned.state == "resumed" else {}
        self._ledger.planned(slide.slide_id, planned.key, planned.blocks, kept)
        left = planned.blocks - len(self._ledger.blocks(slide.slide_id, "analyse"))
        self._observe(Event("planned", slide.slide_id, blocks=left))
        self._next_stage(slide)

    def _next_stage(self, slide: _SlideRun) -> None:
        """Go to the next stage that has something left to do."""
        while not slide.waiting:
            slide.stage = _ORDER[_ORDER.index(slide.stage) + 1]
            indices = slide.order if slide.stage in _BLOCKWISE else (0,)
            done = self._ledger.blocks(slide.slide_id, slide.stage)
            left = [k for k in indices if k not in done]
            size = self._at_once(len(left)) if slide.stage == "write" else 1
            slide.waiting = deque(tuple(left[k : k + size]) for k in range(0, len(left), size))

    def _at_once(self, blocks: int) -> int:
        """Return how many blocks a task writes, so that no worker waits for another's."""
        return min(_WRITTEN_AT_ONCE, max(1, blocks // (TASKS_PER_WORKER * self._workers)))

    def _done(self, slide: _SlideRun, outcome: Outcome) -> None:
        self._ledger.done(slide.slide_id, outcome.row, outcome.seconds)
        self._leave(slide, Event("done", slide.slide_id, outcome=outcome))

    def _fail(self, slide: _SlideRun, error: str, details: str) -> None:
        if slide.job.settings.pseudonyms:
            error, details = (unnamed(text, slide.job.slide) for text in (error, details))
        elif slide.origin:
            # A copy is gone when the user reads of it.
            copy = str(slide.job.slide.path)
            error, details = (text.replace(copy, slide.origin) for text in (error, details))
        error = error.replace(RETRY, f"wsi-minugan retry {shlex.quote(str(slide.job.folder.parent))}")
        for future in slide.running.values():
            future.cancel()
        if slide.stage == "check":
            self._leave(slide, Event("kept", slide.slide_id, error=error, details=details))
            return
        path = Path(slide.origin or slide.job.slide.path)
        seen = file_state(path, self._guard) if not slide.job.slide.url else ""
        self._ledger.failed(slide.slide_id, error, seen)
        self._leave(slide, Event("failed", slide.slide_id, error=error, details=details))

    def _cancel_all(self) -> None:
        for slide in self._active:
            for future in slide.running.values():
                future.cancel()


def _of(bound: Sequence[tuple[_SlideRun, _Blocks]]) -> str:
    names = list(dict.fromkeys(slide.slide_id for slide, _ in bound))
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _why(slide: _SlideRun, stage: Stage, blocks: _Blocks, future: Future, failures: int) -> tuple[str, str]:
    """Return why a task ended badly: a sentence, and the traceback of what nobody expected."""
    error: Any = future.exception()
    if isinstance(error, MinuganError):
        return str(error), ""
    named = stage in _BLOCKWISE and len(blocks) == 1
    where = f"block {blocks[0]} of {slide.slide_id}" if named else f"{slide.slide_id} ({stage})"
    if isinstance(error, KilledWorker):
        number = failures if failures >= LIMIT else error.allowed_failures + 1
        why = (
            f"{pluralize(number, 'worker process', 'worker processes')} died on {where}. Most often memory ran out: "
            "use fewer --workers or a smaller --batch-size; else the slide crashes its reader: try --reader tiatoolbox."
        )
        return why, ""
    sentence = f"Unexpected {type(error).__name__} in {where}: {error}. Please report it with log.jsonl."
    return sentence, "".join(traceback.format_exception(error))
