"""The commands that run: run, retry, demo."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minugan_cli.progress import Progress
from wsi_minugan.config import RunSettings, load_settings
from wsi_minugan.errors import MinuganError
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.inputs import SlideInput, expand_inputs
from wsi_minugan.words import pluralize

if TYPE_CHECKING:
    from wsi_minugan.minugan.bundle import Bundle
    from wsi_minugan.minugan.card import ModelCard
    from wsi_minugan.pipeline.plan import SlidePlan

DEMO_SIDE_PX, DEMO_SLIDE = 3000, "demo.tiff"
_SIGNALLED = 128
"""Exit statuses above are those of a run that a signal stopped."""


def run(
    sources: Sequence[str],
    out: Path,
    config: Path | None,
    flags: dict[str, Any],
    dry_run: bool,
    retry: bool = False,
) -> int:
    """Run a batch, or only say what it would be.

    Parameters
    ----------
    sources : sequence of str
        Files, folders, globs, URLs or CSV tables of slides.
    out : Path
        Output folder.
    config : Path, optional
        YAML file of settings.
    flags : dict of str to any
        Settings given as flags; None where not given. They win over the file's.
    dry_run : bool
        Only print what would be done and how long it takes.
    retry : bool
        Take slides that failed before again.

    Returns
    -------
    int
        0 where all slides are done, 1 where some failed; above 128 where a signal stopped the
        run.
    """
    settings = load_settings(config, flags)
    slides = expand_inputs(sources, lambda text: click.echo(text, err=True), StallGuard(settings.stall_s))
    return _dry_run(slides, settings) if dry_run else run_slides(slides, out, settings, retry)


def run_slides(
    slides: Sequence[SlideInput],
    out: Path,
    settings: RunSettings,
    retry: bool,
    only: Collection[str] | None = None,
) -> int:
    """Run a batch, or `only` some of its sources, and tell how it ended.

    Parameters
    ----------
    slides : sequence of SlideInput
        The whole batch.
    out : Path
        Output folder.
    settings : RunSettings
        Settings of the run.
    retry : bool
        Take slides that failed before again.
    only : collection of str, optional
        Sources of the batch that are run now; by default all.

    Returns
    -------
    int
        0 where all slides are done, 1 where some failed; above 128 where a signal stopped the
        run.
    """
    from minugan_jobs.run import failures, run_batch

    with Progress(len(slides if only is None else only), settings.quiet) as progress:
        result = run_batch(slides, out, settings, progress, retry, progress.note, only)
    done = sum(s.status == "done" for s in result.slides)
    failed = failures(result)
    if result.slides:
        click.echo(
            f"{done} of {pluralize(len(result.slides), 'slide')} done, {len(failed)} failed. Results: {out / 'report.html'}"
        )
    if failed:
        _print_failures(failed, f"{pluralize(len(failed), 'slide')} failed")
        click.echo(
            f"To retry the failed slides as they are: wsi-minugan retry {shlex.quote(str(out))}\n"
            "To give another setting, such as --mpp, run the same command again with it.",
            err=True,
        )
    if result.signal is not None:
        click.echo("Stopped. Run the same command again to resume.", err=True)
    return result.exit_status


def _print_failures(failed: Sequence[tuple[str, str]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("slide", "what happened, and what to do", title=title, title_justify="left")
    for slide_id, why in failed:
        table.add_row(Text(slide_id, overflow="fold"), Text(why, overflow="fold"))
    Console(stderr=True).print(table)


def _dry_run(slides: Sequence[SlideInput], settings: RunSettings) -> int:
    from minugan_jobs.run import check_card
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    bundle = load_bundle(find_bundle(settings.model))
    check_card(bundle, settings)
    patch_s, how = _pace(bundle, settings)
    total_s, bad = 0.0, []
    table = Table(
        "slide", "mpp", "from", "tissue mm2", "patches", "about", title="Dry run: nothing is written"
    )
    for slide in slides:
        name = Text(slide.slide_id, overflow="fold")
        if slide.url:
            table.add_row(name, "", "known once it is copied here")
            continue
        try:
            plan, patches = _looked_at(slide, settings, bundle.card)
        except MinuganError as e:
            bad.append((slide.slide_id, str(e)))
            continue
        seconds = patches * patch_s
        total_s += seconds
        cells = (f"{plan.frame.level0_mpp:.4f}", plan.mpp_source, f"{plan.tissue_mm2:.2f}", str(patches))
        table.add_row(name, *cells, _duration(seconds))
    Console().print(table)
    click.echo(f"{pluralize(len(slides) - len(bad), 'slide')}, about {_duration(total_s)}. {how}")
    if bad:
        _print_failures(bad, f"{pluralize(len(bad), 'slide')} would fail")
    return 1 if bad else 0


def _pace(bundle: Bundle, settings: RunSettings) -> tuple[float, str]:
    """Return the seconds a patch takes with all workers at work, and in words how they were reckoned."""
    from minugan_jobs.clusters.cluster import shares_network, worker_count

    from wsi_minugan.pipeline.estimate import seconds_per_patch

    elsewhere = settings.scheduler is not None or settings.cluster != "local"
    # What a cluster has is not known before it starts: this machine must do for its measure.
    one_s = seconds_per_patch(bundle, settings, "auto" if elsewhere else settings.device)
    workers = worker_count(settings)
    how = f"The time is estimated from one batch of the model\non this machine: {1000 * one_s:.0f} ms a patch"
    if shares_network(settings):
        return one_s, f"{how}, which all workers share."
    how += f" and worker, with {pluralize(workers, 'worker')}."
    return one_s / workers, how + (
        "\nThe cluster's workers may be faster, and there may be more of them." if elsewhere else ""
    )


def _looked_at(slide: SlideInput, settings: RunSettings, card: ModelCard) -> tuple[SlidePlan, int]:
    """Return a slide's plan and its number of patches."""
    from wsi_minugan.pipeline.plan import open_reader, plan_slide

    reader = open_reader(slide.path, settings)
    try:
        plan = plan_slide(slide, reader, settings, card.mpp, patches_across=card.patches_across)
        return plan, plan.grid.patches_each * len(plan.patches_of(plan.frame.box))
    finally:
        reader.close()


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )


def retry(out: Path) -> int:
    """Take the slides of an output folder that are not done again, each with the settings that it was last begun with.

    Parameters
    ----------
    out : Path
        Output folder of the run.

    Returns
    -------
    int
        The highest exit status of the parts; 0 where nothing was left to do.
    """
    from minugan_jobs.state.output_folder import unfinished

    groups = unfinished(out)
    if not groups:
        click.echo(f"All slides in {out} are done. There is nothing to retry.")
    statuses = [0]
    for text, slides in groups:
        settings = load_settings(None, json.loads(text)).model_copy(update={"overwrite": False})
        statuses.append(run_slides(slides, out, settings, retry=True))
        if statuses[-1] > _SIGNALLED:
            break  # who stopped one part does not want the next to begin
    return max(statuses)


def demo(out: Path, seed: int) -> int:
    """Draw a slide with known mitoses and run the whole job on it.

    Parameters
    ----------
    out : Path
        Output folder; the slide is drawn into ``slides/`` in it.
    seed : int
        Seed of the drawing.

    Returns
    -------
    int
        Exit status of the run.

    Raises
    ------
    OutputError
        If the slide cannot be written.
    """
    from wsi_minugan.errors import OutputError
    from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

    drawing = SyntheticSlide(DEMO_SIDE_PX, DEMO_SIDE_PX, seed)
    path = out / "slides" / DEMO_SLIDE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_slide(path, drawing)
    except OSError as e:
        raise OutputError(
            f"The output folder {out} cannot be used: {e.strerror or e}. Choose another."
        ) from e
    click.echo(f"Drew {path}: {DEMO_SIDE_PX} x {DEMO_SIDE_PX} px with {len(drawing.mitoses_xy_px)} mitoses.")
    status = run_slides([SlideInput("demo", path)], out, RunSettings(), retry=True)
    for name, what in (
        ("report.html", "the whole batch in one page"),
        ("demo/mitoses.geojson", "drag it onto the slide in QuPath"),
        ("demo/count.json", "counts, hot spot, scores"),
        ("demo/overview.png", "slide, heat map, hot spot"),
        ("demo/masks.zarr", "OME-Zarr masks"),
    ):
        click.echo(f"  {out / name!s:36} {what}")
    return status
