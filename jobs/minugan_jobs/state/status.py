"""Looking at a run from outside: its state, and whether its files are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minugan_jobs.state.ledger import Ledger
from minugan_jobs.state.lock import LOCK, OWNER, held
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs import manifest
from wsi_minugan.outputs.atomic import SUFFIX
from wsi_minugan.outputs.models import SlideState, StatusFile
from wsi_minugan.slides.inputs import RUN_FILES


def status_of(out: Path) -> StatusFile:
    """Return the state of a run, running or not; a slide that a dead run left behind waits for the next one.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    StatusFile
        Whether a run goes on, and the state of each slide.
    """
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
    """Yield, for each finished slide, a sentence for each file that is not as its manifest, or the ledger, says.

    Parameters
    ----------
    out : Path
        Output folder.

    Yields
    ------
    (str, list of str)
        A slide's name, and the sentences.
    """
    ledger = Ledger(out, read_only=True)
    try:
        states, checksums = ledger.states(), ledger.checksums()
    finally:
        ledger.close()
    for state in states:
        if state.status == "done":
            folder = out / state.slide_id
            try:
                found = manifest.verify(folder, checksums.get(state.slide_id, ""))
                yield state.slide_id, _contradictions(folder, state) + found
            except OutputError as e:
                yield state.slide_id, [str(e)]


def _contradictions(folder: Path, state: SlideState) -> list[str]:
    """Return what a manifest says otherwise than the ledger's row, which was made from it."""
    written = manifest.read_manifest(folder)
    pairs = {
        "slide_id": (written.slide.slide_id, state.slide_id),
        "mpp": (written.slide.mpp, state.mpp),
        "tissue_mm2": (round(written.tissue_mm2, 4), state.tissue_mm2),
    }
    return [
        f"{manifest.MANIFEST}: says {name} {a}, and the ledger {b}"
        for name, (a, b) in pairs.items()
        if b is not None and a != b
    ]


def unknown_in(out: Path) -> list[str]:
    """Return the files beside the slides' folders that no run wrote; they may be the user's own.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    list of str
        Their names, folders with a slash at the end.
    """
    ledger = Ledger(out, read_only=True)
    try:
        slides = {r.slide.slide_id for r in ledger.slides()}
    finally:
        ledger.close()
    return sorted(
        p.name + ("/" if p.is_dir() else "")
        for p in out.iterdir()
        if p.name not in RUN_FILES | slides | {LOCK, OWNER} and p.suffix != SUFFIX
    )
