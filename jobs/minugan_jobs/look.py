"""Looking at a run from outside: its state, and whether its files are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minugan_jobs.ledger import Ledger
from minugan_jobs.lock import held
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs import manifest
from wsi_minugan.outputs.models import StatusFile


def status_of(out: Path) -> StatusFile:
    """Return the state of a run, running or not; a slide that a dead run left behind waits for the next one."""
    ledger = Ledger(out, read_only=True)
    try:
        running, slides = held(out), ledger.states()
        if not running:
            slides = [
                s.model_copy(update={"status": "pending"}) if s.status == "running" else s for s in slides
            ]
        return StatusFile(running=running, slides=slides, blocks_done=ledger.blocks_done())
    finally:
        ledger.close()


def verify_run(out: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield, for each finished slide, a sentence for each file that is not as its manifest says."""
    ledger = Ledger(out, read_only=True)
    try:
        states = ledger.states()
    finally:
        ledger.close()
    for state in states:
        if state.status == "done":
            try:
                yield state.slide_id, manifest.verify(out / state.slide_id)
            except OutputError as e:
                yield state.slide_id, [str(e)]
