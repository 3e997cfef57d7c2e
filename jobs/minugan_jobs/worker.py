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
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from distributed import Worker, WorkerPlugin

from minugan_jobs.clusters.worker_failures import tell_begun
from minugan_jobs.state.disk_space import check_space
from minugan_jobs.tasks import WORKER_STATE, Job, Outcome, Planned, Stage
from wsi_minugan.config import Precision, RunSettings
from wsi_minugan.logs import hush_libraries
from wsi_minugan.minugan.bundle import Bundle, load_bundle
from wsi_minugan.minugan.devices import choose_device, settle_precision
from wsi_minugan.minugan.networks.shared import SharedNetworks
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.outputs.manifest import is_whole, read_manifest
from wsi_minugan.pipeline.own_files import own_bytes, remove_own
from wsi_minugan.pipeline.plan import SlidePlan, open_reader, plan_slide
from wsi_minugan.pipeline.planning.plan_file import load_plan, plan_for, save_plan
from wsi_minugan.pipeline.planning.slide_stain import stain_wish
from wsi_minugan.pipeline.results import SlideWork, finish_slide, slide_state
from wsi_minugan.pipeline.scratch import WORK, Scratch
from wsi_minugan.pipeline.stages import (
    CLASS_OF,
    analyse_block,
    merge_blocks,
    object_thresholds,
    prepare_store,
    write_block,
)
from wsi_minugan.segmentation.masks.store import tune_zarr
from wsi_minugan.slides.files import fingerprint
from wsi_minugan.slides.reader import SlideReader

log = logging.getLogger(__name__)

RESULTS_VERSION = 8
"""Raised when the same inputs would give other results, so that old work is not taken for new."""

_KEPT = 2
_NETWORK = "wsi_minugan.minugan.networks.own"


class WorkerState(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """What a worker keeps between tasks: model, open slides and plans, each made once and bounded in number; one stage runs at a time.

    Parameters
    ----------
    name : str
        Its name on the workers. A scheduler that several runs share has one for each of them.
    network : Path, optional
        Socket of the process that runs the network for all workers; by default it runs here.
    """

    name = WORKER_STATE

    def __init__(self, name: str = WORKER_STATE, network: Path | None = None) -> None:
        self.name = name
        self._network = network
        self._shared: SharedNetworks | None = None
        self._readers: OrderedDict[Path, SlideReader] = OrderedDict()
        self._plans: OrderedDict[Path, tuple[SlidePlan, SlideWork]] = OrderedDict()
        self._bundles: dict[Path, Bundle] = {}
        self._predictor: tuple[Any, Predictor] | None = None
        # Of a worker with several threads one works at a time: a reader must not be closed while another thread reads.
        self._one_at_a_time = threading.Lock()
        self._worker: Worker | None = None

    def __reduce__(self) -> tuple[type[WorkerState], tuple[str, Path | None]]:
        """Travel to a worker empty: what this one holds, and its lock, cannot."""
        return WorkerState, (self.name, self._network)

    def setup(self, worker: Worker) -> None:
        """Keep Zarr from starting threads of its own beside the worker's, and load torch while the first slide is planned.

        Parameters
        ----------
        worker : distributed.Worker
            The worker that holds this.
        """
        self._worker = worker
        tune_zarr()
        hush_libraries()
        if self._network is None:
            threading.Thread(target=importlib.import_module, args=(_NETWORK,), daemon=True).start()

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
        done = self._is_done(job, _signature(job), previous_key)
        return Planned(previous_key, (), "done" if done else "new")

    def _is_done(self, job: Job, signature: str, previous_key: str) -> bool:
        """Return whether finished results are what this job asks for, in the arithmetic that they were made in."""
        if not previous_key or not is_whole(job.folder):
            return False
        settings = self._settled(job, read_manifest(job.folder).settings.get("precision"))
        return results_of(work_key(job, settings, signature, self._bundle(job))) == results_of(previous_key)

    def _make_plan(self, job: Job, previous_key: str) -> Planned:
        self._forget(job)
        bundle, signature = self._bundle(job), _signature(job)
        if self._is_done(job, signature, previous_key):
            shutil.rmtree(job.folder / WORK, ignore_errors=True)
            return Planned(previous_key, (), "done")
        # The ledger may name the key before: a kill can come between this plan's file and the ledger's note of it.
        earlier = plan_for(job.folder / WORK, previous_key)
        if earlier is not None:
            scratch = Scratch(job.folder / WORK, previous_key)
            settings = self._settled(job, earlier.precision)
            if work_key(job, settings, signature, bundle) == previous_key and scratch.place.is_dir():
                whole = scratch.whole_blocks(len(earlier.blocks), CLASS_OF)
                return Planned(previous_key, tuple(earlier.order), "resumed", whole)
        check_space(job.folder.parent, 0.0)
        settings = self._settled(job)
        wish = stain_wish(bundle.card, settings.stain)
        card = bundle.card
        plan = plan_slide(job.slide, self._reader(job), settings, card.mpp, wish, card.patches_across)
        plan = replace(plan, key=(key := work_key(job, settings, signature, bundle)))
        # Only now: earlier results are not given up for a slide that cannot be planned.
        check_space(job.folder.parent, plan.tissue_mm2, own_bytes(job.folder))
        note = remove_own(job.folder)
        prepare_store(plan, job.folder, job.settings.nuclei)
        save_plan(job.folder / WORK, plan.nameless() if settings.pseudonyms else plan)
        return Planned(key, tuple(plan.order), "new", note=note)

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

    def _predict(self, job: Job, s: RunSettings) -> Predictor:
        wanted = (job.model, s.device, s.precision, s.batch_size, s.threads, s.compile)
        if self._predictor is None or self._predictor[0] != wanted:
            shared = self._shared_network(job)
            # A slide that was begun in another arithmetic ends in it.
            if shared is not None and shared.precision != s.precision:
                shared = None
            made = Predictor(
                self._bundle(job), s.device, s.precision, s.batch_size, s.threads, s.compile, shared
            )
            self._predictor = (wanted, made)
        return self._predictor[1]

    def _settled(self, job: Job, begun_in: Any = None) -> RunSettings:
        """Return settings with one arithmetic for all of a slide: as set, as it was begun in, or that of the device."""
        settings = job.settings
        if settings.precision == "auto" and begun_in in get_args(Precision):
            return settings.model_copy(update={"precision": begun_in})
        shared = self._shared_network(job)
        if shared is not None:
            return settings.model_copy(update={"precision": shared.precision})
        precision = settle_precision(settings.precision, choose_device(settings.device))
        return settings.model_copy(update={"precision": precision})

    def _shared_network(self, job: Job) -> SharedNetworks | None:
        """Return the networks of the process that all workers share, if there is one."""
        if self._network is not None and self._shared is None:
            self._shared = SharedNetworks(self._network, self._bundle(job).digest, job.settings.batch_size)
        return self._shared

    def _forget(self, job: Job) -> None:
        self._plans.pop(job.folder, None)
        reader = self._readers.pop(job.folder, None)
        if reader is not None:
            reader.close()


def _signature(job: Job) -> str:
    return fingerprint(job.slide.path, job.settings.stall_s)


def _keep(cache: OrderedDict[Path, Any], key: Path, value: Any) -> list[Any]:
    """Put a value into a bounded cache and return what had to leave."""
    cache[key] = value
    return [cache.popitem(last=False)[1] for _ in range(max(0, len(cache) - _KEPT))]


def work_key(job: Job, settings: RunSettings, signature: str, bundle: Bundle) -> str:
    """Return the digest of what decides a slide's results (`settings` with their arithmetic settled), and how its scratch is cut.

    Parameters
    ----------
    job : Job
        The slide.
    settings : RunSettings
        With their arithmetic settled.
    signature : str
        The slide's content.
    bundle : Bundle
        The model.

    Returns
    -------
    str
        Two digests, or parts of them, with a hyphen between.
    """
    content = {
        "version": RESULTS_VERSION,
        "slide": signature,
        "slide_id": job.slide.slide_id,
        "mpp": job.slide.mpp,
        "settings": settings.results_key(),
        "model": bundle.digest,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{digest}-{settings.block_px}"


def results_of(key: str) -> str:
    """Return the part of a work's key that decides results, which do not depend on how scratch is cut.

    Parameters
    ----------
    key : str
        What `work_key` returns.

    Returns
    -------
    str
        A digest.
    """
    return key.partition("-")[0]
