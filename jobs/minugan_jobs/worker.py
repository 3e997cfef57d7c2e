"""What a Dask worker does: one stage of one slide, with its model, readers and plans kept between tasks."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from distributed import Worker, WorkerPlugin, get_worker

from minugan_jobs.clusters.worker_failures import tell_begun
from minugan_jobs.state.disk_space import check_space
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import OutputError
from wsi_minugan.logs import hush_libraries
from wsi_minugan.minugan.bundle import Bundle, load_bundle
from wsi_minugan.minugan.devices import choose_device, settle_precision
from wsi_minugan.outputs.manifest import clear_folder, is_whole
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.pipeline.plan import (
    SlidePlan,
    fingerprint,
    load_plan,
    open_reader,
    plan_for,
    plan_slide,
    save_plan,
)
from wsi_minugan.pipeline.results import SlideWork, finish_slide, slide_state
from wsi_minugan.pipeline.scratch import WORK, Scratch
from wsi_minugan.pipeline.stages import (
    analyse_block,
    merge_blocks,
    object_thresholds,
    prepare_store,
    write_block,
)
from wsi_minugan.segmentation import masks
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.reader import SlideReader

log = logging.getLogger(__name__)

Stage = Literal["check", "plan", "analyse", "merge", "write", "finish"]
RESULTS_VERSION = 8
"""Raised when the same inputs would give other results, so that old work is not taken for new."""

WORKER_STATE = "minugan-worker-state"
_KEPT = 2
_NETWORK = "wsi_minugan.minugan.predictor"


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
    """

    key: str
    order: tuple[int, ...]
    state: Literal["new", "resumed", "done"]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
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
        """Run one stage; `blocks` are the blocks that it shall do, `previous_key` the key of earlier work ("plan" only)."""


class WorkerState(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """What a worker keeps between tasks: model, open slides and plans, each made once and bounded in number; one stage runs at a time.

    Parameters
    ----------
    name : str
        Its name on the workers. A scheduler that several runs share has one for each of them.
    """

    name = WORKER_STATE

    def __init__(self, name: str = WORKER_STATE) -> None:
        self.name = name
        self._readers: OrderedDict[Path, SlideReader] = OrderedDict()
        self._plans: OrderedDict[Path, tuple[SlidePlan, SlideWork]] = OrderedDict()
        self._bundles: dict[Path, Bundle] = {}
        self._predictor: tuple[Any, Any] | None = None
        # Of a worker with several threads one works at a time: a reader must not be closed while another thread reads.
        self._one_at_a_time = threading.Lock()
        self._worker: Worker | None = None

    def __reduce__(self) -> tuple[type[WorkerState], tuple[str]]:
        """Travel to a worker empty: what this one holds, and its lock, cannot."""
        return WorkerState, (self.name,)

    def setup(self, worker: Worker) -> None:
        """Keep Zarr from starting threads of its own beside the worker's, and load torch while the first slide is planned."""
        self._worker = worker
        masks.tune_zarr()
        hush_libraries()
        threading.Thread(target=importlib.import_module, args=(_NETWORK,), daemon=True).start()

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        """Run one stage of a slide; see `StageRunner`."""
        with self._one_at_a_time:
            if self._worker is not None:
                tell_begun(self._worker)
            return self._run(stage, job, blocks, previous_key)

    def _run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        start = time.perf_counter()
        if job.settings.stage_dir is not None:
            self._close_removed(job.settings.stage_dir)
        if stage in {"check", "plan"}:
            planned = (self._check if stage == "check" else self._make_plan)(job, previous_key)
            row = slide_state(job.slide, job.folder) if planned.state == "done" else None
            return Outcome(time.perf_counter() - start, planned=planned, row=row)
        # Before the disk is full to the last byte: the ledger must still take what became of this slide.
        check_space(job.folder.parent, 0.0)
        plan, work = self._plan(job)
        nuclei = job.settings.nuclei
        if stage == "analyse":
            thresholds = object_thresholds(work.bundle, job.settings)
            predictor, reader = self._predict(job, work.settings), self._reader(job)
            done = [analyse_block(plan, k, reader, predictor, thresholds, job.folder, nuclei) for k in blocks]
            patches, area = sum(d.patches for d in done), sum(d.tissue_mm2 for d in done)
            return Outcome(time.perf_counter() - start, patches, area)
        row = None
        if stage == "merge":
            merge_blocks(plan, object_thresholds(work.bundle, job.settings), job.folder)
        elif stage == "write":
            for k in blocks:
                write_block(plan, k, job.folder, nuclei)
        else:
            row = finish_slide(plan, self._reader(job), work, job.folder)
            self._forget(job)
        return Outcome(time.perf_counter() - start, row=row)

    def _check(self, job: Job, previous_key: str) -> Planned:
        """Return whether a finished slide still is what this job asks for; changes nothing."""
        key = work_key(job, _settled(job.settings), _signature(job), self._bundle(job))
        return Planned(key, (), "done" if key == previous_key and is_whole(job.folder) else "new")

    def _make_plan(self, job: Job, previous_key: str) -> Planned:
        self._forget(job)
        bundle, settings = self._bundle(job), _settled(job.settings)
        key = work_key(job, settings, _signature(job), bundle)
        if key == previous_key and is_whole(job.folder):
            shutil.rmtree(job.folder / WORK, ignore_errors=True)
            return Planned(key, (), "done")
        # The ledger may name the key before: a kill can come between this plan's file and the ledger's note of it.
        earlier = plan_for(job.folder / WORK, key) if key == previous_key else None
        if earlier is not None and Scratch(job.folder / WORK, key).place.is_dir():
            return Planned(key, tuple(earlier.order), "resumed")
        check_space(job.folder.parent, 0.0)
        _remove(job.folder)
        plan = replace(plan_slide(job.slide, self._reader(job), settings, bundle.card.mpp), key=key)
        check_space(job.folder.parent, plan.tissue_mm2)
        prepare_store(plan, job.folder, job.settings.nuclei)
        save_plan(job.folder / WORK, plan.nameless() if settings.pseudonyms else plan)
        return Planned(key, tuple(plan.order), "new")

    def _plan(self, job: Job) -> tuple[SlidePlan, SlideWork]:
        if job.folder not in self._plans:
            bundle, signature = self._bundle(job), _signature(job)
            plan = load_plan(job.folder / WORK)
            settings = job.settings.model_copy(update={"precision": plan.precision})
            work = SlideWork(settings, bundle, signature)
            _keep(self._plans, job.folder, (plan, work))
        self._plans.move_to_end(job.folder)
        return self._plans[job.folder]

    def _reader(self, job: Job) -> SlideReader:
        if job.folder not in self._readers:
            reader = open_reader(job.slide.path, job.settings)
            for old in _keep(self._readers, job.folder, reader):
                old.close()
        self._readers.move_to_end(job.folder)
        return self._readers[job.folder]

    def _close_removed(self, stage_dir: Path) -> None:
        """Close slides whose copy was removed: it takes up its disk until nobody has it open."""
        for folder, reader in list(self._readers.items()):
            path = reader.info.path
            if path.is_relative_to(stage_dir) and not path.exists():
                self._readers.pop(folder).close()

    def _bundle(self, job: Job) -> Bundle:
        if job.model not in self._bundles:
            self._bundles[job.model] = load_bundle(job.model)
        return self._bundles[job.model]

    def _predict(self, job: Job, s: RunSettings) -> Any:
        from wsi_minugan.minugan.predictor import Predictor

        wanted = (job.model, s.device, s.precision, s.batch_size, s.threads, s.compile)
        if self._predictor is None or self._predictor[0] != wanted:
            bundle = self._bundle(job)
            made = Predictor(bundle, s.device, s.precision, s.batch_size, s.threads, compiled=s.compile)
            self._predictor = (wanted, made)
        return self._predictor[1]

    def _forget(self, job: Job) -> None:
        self._plans.pop(job.folder, None)
        reader = self._readers.pop(job.folder, None)
        if reader is not None:
            reader.close()


def _signature(job: Job) -> str:
    return fingerprint(job.slide.path, job.settings.stall_s)


def _settled(settings: RunSettings) -> RunSettings:
    """Return settings whose arithmetic is that of this worker's device, so that all blocks of a slide have the same."""
    precision = settle_precision(settings.precision, choose_device(settings.device))
    return settings.model_copy(update={"precision": precision})


def _keep(cache: OrderedDict[Path, Any], key: Path, value: Any) -> list[Any]:
    """Put a value into a bounded cache and return what had to leave."""
    cache[key] = value
    return [cache.popitem(last=False)[1] for _ in range(max(0, len(cache) - _KEPT))]


def _remove(folder: Path) -> None:
    try:
        clear_folder(folder)
    except FileNotFoundError:
        return
    except OSError as e:
        raise OutputError(f"{folder} cannot be replaced: {e.strerror or e}. Remove it by hand.") from e


def work_key(job: Job, settings: RunSettings, signature: str, bundle: Bundle) -> str:
    """Return the digest of what decides a slide's results (`settings` with their arithmetic settled), and of how its scratch is cut."""
    content = {
        "version": RESULTS_VERSION,
        "slide": signature,
        "slide_id": job.slide.slide_id,
        "mpp": job.slide.mpp,
        "settings": settings.results_key(),
        "model": bundle.digest,
        "block_px": settings.block_px,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_stage(stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
    """Run one stage on the worker that executes this task."""
    worker_state: StageRunner = get_worker().plugins[job.worker_state]
    return worker_state.run(stage, job, blocks, previous_key)
