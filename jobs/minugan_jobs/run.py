"""One batch from start to end: inputs, output folder, lock, ledger, engine, and the files about the whole run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minugan_jobs.clusters.cluster import open_cluster
from minugan_jobs.clusters.network_process import shared_network
from minugan_jobs.scheduler import Engine, Event, Observer
from minugan_jobs.staging import open_staging
from minugan_jobs.state.disk_space import space_warning
from minugan_jobs.state.event_log import EventLog
from minugan_jobs.state.ledger import Ledger, SlideRecord
from minugan_jobs.state.lock import hold
from minugan_jobs.state.output_folder import name_slides, prepare_folder, remove_results
from minugan_jobs.stopping import StopRequest, stop_signals
from minugan_jobs.tasks import WORKER_STATE, Job
from minugan_jobs.worker_plugin import StagePlugin
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError, MinuganError, OutputError
from wsi_minugan.minugan.bundle import BUNDLED, Bundle, find_bundle, load_bundle
from wsi_minugan.minugan.devices import choose_device
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import RunFile, SlideState
from wsi_minugan.outputs.report import write_report
from wsi_minugan.outputs.tables import write_slides
from wsi_minugan.pipeline.areas import check_drawn
from wsi_minugan.pipeline.facts import model_facts, versions
from wsi_minugan.pipeline.planning.slide_stain import stain_wish
from wsi_minugan.slides.files import file_state
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.inputs import SlideInput

log = logging.getLogger(__name__)

_TABLE_EVERY_S = 10.0
"""The table of a large batch takes seconds to write; after each slide it would take hours in all."""


@dataclass(frozen=True)
class BatchResult:
    """How a batch ended.

    Attributes
    ----------
    slides : tuple of SlideState
        The batch's slides.
    signal : int or None
        The signal that stopped it.
    """

    slides: tuple[SlideState, ...]
    signal: int | None

    @property
    def exit_status(self) -> int:
        """0 all done, 1 some failed, 128 + signal when stopped.

        Returns
        -------
        int
            For the shell.
        """
        if self.signal is not None:
            return 128 + self.signal
        return 0 if all(s.status == "done" for s in self.slides) else 1


def run_batch(
    slides: Sequence[SlideInput],
    out: Path,
    settings: RunSettings,
    observe: Observer,
    retry: bool = False,
    note: Callable[[str], None] = log.warning,
    only: Collection[str] | None = None,
) -> BatchResult:
    """Take a batch of slides to its end, or to a signal.

    Parameters
    ----------
    slides : sequence of SlideInput
        The batch.
    out : Path
        Output folder.
    settings : RunSettings
        Settings.
    observe : callable
        Takes events, for progress.
    retry : bool
        Take failed slides again.
    note : callable
        Takes sentences for the user.
    only : collection of str, optional
        Sources of the slides to take and to tell of; the others of the batch are not even looked at. Default all.

    Returns
    -------
    BatchResult
        What became of each slide.

    Raises
    ------
    MinuganError
        If the model, the device or the output folder cannot be used, and no slide was begun; or if the run broke off.
    """
    bundle = load_bundle(find_bundle(settings.model))
    _check_device(settings)
    check_card(bundle, settings)
    check_drawn(settings)
    slides, settings = _for_workers(slides, settings)
    prepare_folder(out, slides, settings.overwrite)
    broke: MinuganError | None = None
    with hold(out) as takeover, stop_signals() as stop:
        local = [s.path for s in slides if not s.url]
        with stop.breaks_off():
            for text in (takeover, space_warning(out, local, StallGuard(settings.stall_s))):
                if text:
                    note(text)
        if stop.asked():
            return BatchResult((), stop.signal)
        emptied = remove_results(out, note) if settings.overwrite else ()
        slides = name_slides(out, slides, settings.pseudonyms, emptied)
        wanted = {s.slide_id for s in slides if only is None or s.source in only}
        with closing(Ledger(out)) as ledger:
            try:
                _run(slides, wanted, out, settings, bundle, ledger, observe, retry, stop)
            except MinuganError as e:
                broke = e
            result = BatchResult(tuple(s for s in ledger.states() if s.slide_id in wanted), stop.signal)
    if settings.on_finish and stop.signal is None:
        # Over night nobody reads the terminal: that a run broke off is to be told, too.
        status = broke.exit_status if broke else result.exit_status
        note(run_on_finish(settings.on_finish, out, result.slides, status))
    if broke:
        raise broke
    return result


def _for_workers(
    slides: Sequence[SlideInput], settings: RunSettings
) -> tuple[tuple[SlideInput, ...], RunSettings]:
    """Return slides and settings whose paths hold for workers, which have other working folders."""
    remote = [s.url for s in slides if s.url]
    if remote and settings.stage_dir is None:
        raise InputError(f"{remote[0]} is not local: give a folder for copies with --stage-dir.")
    if settings.stage_dir is not None:
        settings = settings.model_copy(update={"stage_dir": settings.stage_dir.absolute()})
    return tuple(s if s.url else replace(s, path=s.path.absolute()) for s in slides), settings


def run_on_finish(command: str, out: Path, slides: Sequence[SlideState], status: int) -> str:
    """Run the user's command for the end of a batch, without a shell, and return what to tell of it.

    Parameters
    ----------
    command : str
        The user's, split as a shell would.
    out : Path
        The output folder.
    slides : sequence of SlideState
        All slides of the batch.
    status : int
        The batch's exit status.

    Returns
    -------
    str
        Empty where there is nothing to tell.
    """
    tally = [s.status for s in slides]
    environment = {
        "WSI_MINUGAN_OUT": str(out.absolute()),
        "WSI_MINUGAN_DONE": str(tally.count("done")),
        "WSI_MINUGAN_FAILED": str(tally.count("failed")),
        "WSI_MINUGAN_STATUS": str(status),
    }
    try:
        ended = subprocess.run(shlex.split(command), env=os.environ | environment, check=False)
    except (OSError, ValueError, IndexError) as e:
        return f"The command of --on-finish cannot be run: {e}. Check it; the results are not touched."
    return f"The command of --on-finish ended with status {ended.returncode}."


def _run(
    slides: Sequence[SlideInput],
    wanted: Collection[str],
    out: Path,
    settings: RunSettings,
    bundle: Bundle,
    ledger: Ledger,
    observe: Observer,
    retry: bool,
    stop: StopRequest,
) -> None:
    request = _request(settings, bundle)
    ledger.add_slides(slides, hidden=settings.pseudonyms)
    ledger.reset("running")
    text = _anywhere(settings, bundle).model_dump_json()
    ledger.note("settings", text)
    ledger.note(f"settings {request}", text)
    named = {s.slide_id: s for s in slides if s.slide_id in wanted}
    known = [replace(r, slide=named[r.slide.slide_id]) for r in ledger.slides() if r.slide.slide_id in named]
    # Finished slides are only looked at again, and that can wait.
    guard = StallGuard(settings.stall_s)
    records: list[SlideRecord] = []
    with stop.breaks_off():
        records = [r for r in known if _to_do(r, request, retry, guard)]
    records.sort(key=lambda r: r.status == "done")
    started = _now()
    _write_run(out, settings, bundle, ledger, started, None)
    with EventLog(out) as events:
        watch = _Watch(out, ledger, events, observe)
        try:
            if records or stop.asked():
                if not stop.asked():
                    _work_off(records, out, settings, bundle, request, ledger, watch, stop)
                events.write("stopped" if stop.asked() else "ended")
        except MinuganError as e:
            with suppress(OutputError):  # the disk may be full, or the folder gone
                events.write("ended", error=str(e))
            raise
        finally:
            # Slides that were stopped on their way wait; table and report must not say that they run.
            ledger.reset("running")
            _write_run(out, settings, bundle, ledger, started, _now())


def _work_off(
    records: Sequence[SlideRecord],
    out: Path,
    settings: RunSettings,
    bundle: Bundle,
    request: str,
    ledger: Ledger,
    watch: _Watch,
    stop: StopRequest,
) -> None:
    run = hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:12]
    # The same for the same folder: a run that was killed could not take its own away, and this one replaces it.
    worker_state, model = f"{WORKER_STATE}-{run}", bundle.path.absolute()

    def make_job(r: SlideRecord) -> Job:
        folder = out.absolute() / r.slide.slide_id
        return Job(r.slide, folder, settings, model, request + str(r.slide.mpp), worker_state)

    with (
        stop.breaks_off(),
        open_staging(records, settings.stage_dir, run, settings.stage_gb, settings.stall_s) as staging,
        shared_network(settings, model) as network,
        open_cluster(settings, StagePlugin(worker_state, network)) as client,
        stop.is_looked_for(),
    ):
        Engine(client, ledger, staging, make_job, watch, stop.asked).run()


def _anywhere(settings: RunSettings, bundle: Bundle) -> RunSettings:
    """Return settings whose paths hold from any folder, for a retry from another."""
    paths: dict[str, Any] = {}
    if bundle.path.parent != BUNDLED:
        paths["model"] = str(bundle.path.absolute())
    if settings.cluster != "local":
        paths["cluster"] = str(Path(settings.cluster).absolute())
    return settings.model_copy(update=paths)


def _to_do(record: SlideRecord, request: str, retry: bool, guard: StallGuard) -> bool:
    """Return whether a slide is to be taken.

    Failed slides wait for a retry, other settings or another file. Finished ones are checked against slide, settings and model,
    but for those from elsewhere: these are not fetched again to see whether they have changed.
    """
    same = record.request == request + str(record.slide.mpp)
    if record.status == "done":
        return not (same and record.slide.url)
    if record.status != "failed" or retry or not same:
        return True
    return not record.slide.url and file_state(record.slide.path, guard) != record.seen


def _request(settings: RunSettings, bundle: Bundle) -> str:
    text = json.dumps([settings.results_key(), bundle.digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Watch:
    """Passes events on, and keeps log and table up to date."""

    out: Path
    ledger: Ledger
    events: EventLog
    observe: Observer
    table_s: float = -math.inf

    def __call__(self, event: Event) -> None:
        if event.kind != "block":
            self.events.write(
                event.kind, slide_id=event.slide_id, error=event.error or None, details=event.details or None
            )
        if event.kind in {"done", "kept", "failed"} and time.monotonic() - self.table_s > _TABLE_EVERY_S:
            write_slides(self.out / "slides.csv", self.ledger.states())
            self.table_s = time.monotonic()
        self.observe(event)


def _write_run(
    out: Path, settings: RunSettings, bundle: Bundle, ledger: Ledger, started: str, ended: str | None
) -> None:
    states = ledger.states()
    tally = [s.status for s in states]
    run = RunFile(
        settings=settings.model_dump(mode="json"),
        versions=versions(),
        model=model_facts(bundle),
        machine={"host": socket.gethostname(), "system": platform.platform(), "cores": os.cpu_count()},
        started=started,
        ended=ended,
        slides_done=tally.count("done"),
        slides_failed=tally.count("failed"),
        slides_pending=len(tally) - tally.count("done") - tally.count("failed"),
    )
    write_text(out / "run.json", run.model_dump_json(indent=2) + "\n")
    write_slides(out / "slides.csv", states)
    report = out / "report.html"
    # Of thousands of finished slides it takes a minute, which no worker is to wait for at the start.
    if ended or not report.exists():
        write_report(report, run, states)


def _check_device(settings: RunSettings) -> None:
    if settings.device == "cuda" and not settings.scheduler:
        choose_device("cuda")


def check_card(bundle: Bundle, settings: RunSettings) -> None:
    """Refuse settings that ask for what the model's card does not have: every slide would fail by them.

    Parameters
    ----------
    bundle : Bundle
        The model.
    settings : RunSettings
        Operating point and stain.

    Raises
    ------
    ModelError
        If the card lacks the operating point, or the target stain.
    """
    bundle.card.least_peak(settings.operating_point, settings.mitosis_threshold)
    stain_wish(bundle.card, settings.stain)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def failures(result: BatchResult) -> list[tuple[str, str]]:
    """Return (slide_id, why) of the slides that failed.

    Parameters
    ----------
    result : BatchResult
        What became of each slide.

    Returns
    -------
    list of tuple of str
        In the batch's order.
    """
    return [(s.slide_id, s.error) for s in result.slides if s.status == "failed"]
