"""Commands that look at a run, and the one that waits for slides: status, verify, watch."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsi_minugan.errors import InputError, MinuganError, OutputError

if TYPE_CHECKING:
    from wsi_minugan.outputs.models import StatusFile

_WATCH_S = 2.0
_AGAIN_S = 30.0
_IDLE_SHARE = 10


def status(out: Path, as_json: bool, watch: bool) -> int:
    """Print a run's state, once or until it ends.

    Parameters
    ----------
    out : Path
        Output folder of the run.
    as_json : bool
        Print the content of ``schemas/status.schema.json`` instead of a table.
    watch : bool
        Print again every 2 s, until the run ends.

    Returns
    -------
    int
        Exit status, always 0.
    """
    from minugan_jobs.state.status import status_of
    from rich.console import Console

    while True:
        state = status_of(out)
        if as_json:
            click.echo(state.model_dump_json(indent=None if watch else 2))
        else:
            Console().print(_table(state))
        if not watch or not state.running:
            return 0
        time.sleep(_WATCH_S)


def _table(state: StatusFile) -> Any:
    from rich.table import Table
    from rich.text import Text

    title = "running" if state.running else "not running"
    table = Table(
        "slide", "status", "blocks", "mitoses", "hot spot", "why", title=title, title_justify="left"
    )
    for s in state.slides:
        blocks = state.blocks_done.get(s.slide_id)
        cells = ["" if v is None else str(v) for v in (blocks, s.mitoses, s.hotspot_mitoses)]
        table.add_row(Text(s.slide_id, overflow="fold"), s.status, *cells, Text(s.error, overflow="fold"))
    return table


def verify(out: Path) -> int:
    """Check every file of every finished slide.

    Parameters
    ----------
    out : Path
        Output folder of the run.

    Returns
    -------
    int
        0 where all files are as their manifests say, else 1.

    Raises
    ------
    OutputError
        If no slide is finished.
    """
    from minugan_jobs.state.status import unknown_in, verify_run

    problems = dict(verify_run(out))
    for slide_id, found in problems.items():
        for text in found or ["ok"]:
            click.echo(f"{slide_id}: {text}")
    for name in unknown_in(out):
        click.echo(f"Note: {name} is in no manifest, and was not checked.", err=True)
    if not problems:
        raise OutputError(f"{out} holds no finished slides. Run them first.")
    return 1 if any(problems.values()) else 0


def watch(
    folder: Path, out: Path, config: Path | None, flags: dict[str, Any], settle_s: float, once: bool
) -> int:
    """Take slides as they arrive in a folder, once their size has stopped changing.

    Parameters
    ----------
    folder : Path
        Where slides arrive.
    out : Path
        Output folder.
    config : Path, optional
        YAML file of settings.
    flags : dict of str to any
        Settings given as flags; None where not given. They win over the file's.
    settle_s : float
        Seconds for which a slide's size must not change before it is taken.
    once : bool
        End after the first batch.

    Returns
    -------
    int
        Exit status of the last batch; above 128 where a signal stopped it.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    from minugan_jobs.watcher import Arrivals

    from minugan_cli.running import run_slides
    from wsi_minugan.config import load_settings
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    # Not whether it can be read: a share that is away for a while comes back.
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises where a folder above may not be read
        raise InputError(f"There is no folder {folder} to watch. Check the name and who may read it.")
    settings = load_settings(config, flags)
    load_bundle(find_bundle(settings.model))  # a wrong model would not come right by waiting
    arrivals = Arrivals(
        folder, settle_s, tell=lambda text: click.echo(text, err=True), stall_s=settings.stall_s
    )
    told = ""
    click.echo(f"Watching {folder}; stop with Ctrl-C.", err=True)
    while True:
        begin = time.process_time()
        ready = arrivals.settled()
        looked_s = time.process_time() - begin
        if ready:
            try:
                code = run_slides(ready, out, settings, retry=False, only=arrivals.fresh)
            except MinuganError as e:
                if once:
                    raise
                told = _tell_once(e, told)
                arrivals.again()
                time.sleep(_AGAIN_S)
                continue
            told = ""
            if once or code > 128:
                return code
        # To look at thousands of slides takes a core seconds, and others work here, too.
        time.sleep(max(min(_WATCH_S, settle_s), _IDLE_SHARE * looked_s))


def _tell_once(error: MinuganError, told: str) -> str:
    """Tell why slides could not be run, unless that was told last.

    A lock held for a moment, a full disk, a share that is away: what passes must not end a watch over night.
    """
    if str(error) != told:
        click.echo(f"{error}\nThe watch continues, and tries again every {_AGAIN_S:.0f} s.", err=True)
    return str(error)
