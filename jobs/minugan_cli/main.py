"""`wsi-minugan`: the commands, their arguments and exit statuses."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from minugan_cli.options import counting_options, setting_options
from wsi_minugan import __version__
from wsi_minugan.console import run_app, steady_streams
from wsi_minugan.logs import hush_libraries

# Whether a path may be read is told by whoever reads it, with what to do; click's own words give no advice.
_PATH = click.Path(path_type=Path, readable=False)

EXPORTS = ("qupath", "csv", "parquet", "geojson.gz", "annotationstore", "ome-zarr-zip")
"""As in wsi_minugan.outputs.exports, which takes too long to load for a help text."""
_OF_DASK = ("distributed", "tornado", "asyncio")
"""Loggers of Dask and of what it stands on."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wsi-minugan")
def app() -> None:
    """Mitoses and nuclei on whole H&E slides: masks, polygons for QuPath, hot-spot counts."""


@app.command()
@click.argument("sources", nargs=-1, required=True, metavar="SLIDE...")
@click.option("-o", "--out", type=_PATH, required=True, help="Folder for the results.")
@click.option("--config", type=_PATH, help="YAML file of settings; flags win.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--retry", is_flag=True, help="Retry slides that failed before.")
@setting_options
def run(
    sources: tuple[str, ...], out: Path, config: Path | None, dry_run: bool, retry: bool, **flags: Any
) -> None:
    """Analyse slides: files, folders, globs, or a CSV with columns path, slide_id, mpp."""
    from minugan_cli import running

    sys.exit(running.run(sources, out, config, flags, dry_run, retry))


@app.command()
@click.argument("out", type=_PATH)
def retry(out: Path) -> None:
    """Retry the failed slides of a run, with its settings."""
    from minugan_cli import running

    sys.exit(running.retry(out))


@app.command()
@click.argument("out", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="For programs; schema in schemas/status.schema.json.")
@click.option("--watch", is_flag=True, help="Repeat every two seconds, until the run ends.")
def status(out: Path, as_json: bool, watch: bool) -> None:
    """Show the state of a run, also while it runs."""
    from minugan_cli import monitoring

    sys.exit(monitoring.status(out, as_json, watch))


@app.command()
@click.argument("out", type=_PATH)
def verify(out: Path) -> None:
    """Check every file of a run's finished slides against its digest."""
    from minugan_cli import monitoring

    sys.exit(monitoring.verify(out))


@app.command()
@click.argument("folder", type=_PATH)
@click.option("-o", "--out", type=_PATH, required=True, help="Folder for the results.")
@click.option("--config", type=_PATH, help="YAML file of settings; flags win.")
@click.option(
    "--settle-s",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds for which a slide's size must not change.",
)
@click.option("--once", is_flag=True, help="End after the first batch.")
@setting_options
def watch(folder: Path, out: Path, config: Path | None, settle_s: float, once: bool, **flags: Any) -> None:
    """Take slides as they arrive in a folder."""
    from minugan_cli import monitoring

    sys.exit(monitoring.watch(folder, out, config, flags, settle_s, once))


@app.command()
@click.argument("slide", type=_PATH)
@click.option("--mpp", type=float, help="um/px of level 0, if the slide does not say.")
@click.option("--reader", type=click.Choice(["auto", "openslide", "tiatoolbox"]), default="auto")
@click.option("--png", type=_PATH, help="Write a picture of the tissue that was found.")
@click.option("--model", default="default", show_default=True, help="Model whose resolution is shown.")
def inspect(slide: Path, mpp: float | None, reader: str, png: Path | None, model: str) -> None:
    """Show what a run would see of one slide."""
    from minugan_cli import inspection

    inspection.inspect(slide, mpp, reader, png, model)


@app.command()
def doctor() -> None:
    """Check the installation and say what to do."""
    from minugan_cli import inspection

    sys.exit(inspection.doctor())


@app.group()
def models() -> None:
    """List, show and verify model bundles."""


@models.command("list")
def models_list() -> None:
    """List the bundled models."""
    from minugan_cli import inspection

    inspection.list_models()


@models.command("show")
@click.argument("model", default="default")
def models_show(model: str) -> None:
    """Print a model's card."""
    from minugan_cli import inspection

    inspection.show_model(model)


@models.command("verify")
@click.argument("model", default="default")
def models_verify(model: str) -> None:
    """Check a model's card, weights and digest."""
    from minugan_cli import inspection

    inspection.verify_model(model)


@app.command()
@click.argument("source", type=_PATH)
@click.argument("corrected", type=_PATH, required=False)
@click.option("--mpp", type=float, help="um/px of the coordinates; needed for a GeoJSON alone.")
@click.option("-o", "--out", type=_PATH, help="Write count.json here; default print it.")
@counting_options
def count(source: Path, corrected: Path | None, mpp: float | None, out: Path | None, **flags: Any) -> None:
    """Count again, without the network: a slide's result folder, a GeoJSON of mitoses, or a corrected GeoJSON with its folder.

    Of a folder and a GeoJSON, the mitoses are the GeoJSON's; area, tissue and resolution are the folder's.
    """
    from minugan_cli import recounting

    recounting.recount(source, corrected, mpp, flags, out)


@app.command()
@click.argument("out", type=_PATH)
@click.option("--to", "kind", type=click.Choice(EXPORTS), required=True, help="What to write.")
@click.option("-o", "--folder", type=_PATH, help="Where to write it; default OUT/export.")
def export(out: Path, kind: str, folder: Path | None) -> None:
    """Write mitoses and nuclei, or masks, for other programs: of a whole run, or of one slide's folder."""
    from minugan_cli import exporting

    exporting.export(out, kind, folder)


@app.command()
@click.argument("folder", type=_PATH, metavar="OUT/SLIDE_ID")
@click.argument("corrected", type=_PATH, metavar="CORRECTED.geojson")
@click.option("--reviewer", help="Who reviewed; default the login name. Each reviewer's files stay apart.")
@click.option("--slide", type=_PATH, help="Where the slide lies now, if it was moved since the run.")
def review(folder: Path, corrected: Path, reviewer: str | None, slide: Path | None) -> None:
    """Take a GeoJSON corrected in QuPath: what was changed, the new count and scores, images for training."""
    from minugan_cli import reviewing

    reviewing.review(folder, corrected, reviewer, slide)


@app.command()
@click.argument("place", type=_PATH, metavar="OUT[/SLIDE_ID]")
@click.option("--reviewer", help="Who reviews; default the login name. Each reviewer's files stay apart.")
@click.option("--slide", type=_PATH, help="Where the slide lies now, if it was moved since the run.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: a free one.")
@click.option("--browser/--no-browser", default=True, help="Open the browser, or only print the address.")
@click.option(
    "--export", "page", type=_PATH, metavar="FILE.html", help="Write one offline page, and show nothing."
)
def view(
    place: Path, reviewer: str | None, slide: Path | None, port: int, browser: bool, page: Path | None
) -> None:
    """Look at slides in the browser, and accept, reject and add mitoses; nobody else can open it."""
    from minugan_cli import reviewing

    if page is not None:
        reviewing.export(place, reviewer, slide, page)
    else:
        reviewing.view(place, reviewer, slide, port, browser)


@app.command()
@click.argument("readers", nargs=-1, required=True, type=_PATH, metavar="A B...")
@click.option("--mpp", type=float, help="um/px of the coordinates; needed for GeoJSON files.")
@click.option(
    "--radius-um",
    type=click.FloatRange(0, 1000, min_open=True),
    default=7.5,
    show_default=True,
    help="Greatest distance at which two marks are one mitosis.",
)
@click.option(
    "--hpf-diameter-mm", type=click.FloatRange(0.1, 2.0), default=0.5, show_default=True, help="For scores."
)
@click.option(
    "--places/--no-places",
    default=True,
    help="Compare single mitoses; not where each reader had another scan.",
)
@click.option("-o", "--out", type=_PATH, help="Folder for agreement.json, unmatched.csv and agreement.svg.")
def agree(
    readers: tuple[Path, ...],
    mpp: float | None,
    radius_um: float,
    hpf_diameter_mm: float,
    places: bool,
    out: Path | None,
) -> None:
    """Compare readers, runs or scanners: result folders, batches, GeoJSON files, or folders of these."""
    from minugan_cli import comparing

    comparing.agree(readers, mpp, radius_um, hpf_diameter_mm, places, out)


@app.command()
@click.option("-o", "--out", type=_PATH, default=Path("demo-output"), show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the drawing.")
def demo(out: Path, seed: int) -> None:
    """Draw a small H&E-like slide with known mitoses and run the whole job on it."""
    from minugan_cli import running

    sys.exit(running.demo(out, seed))


def main() -> None:
    """Run the command line; a user's mistake ends in a sentence, not a traceback."""
    steady_streams()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    hush_libraries()
    for handler in logging.getLogger().handlers:
        # Dask tells of every connection; what matters of it reaches the user as a slide's failure.
        handler.addFilter(lambda record: not record.name.startswith(_OF_DASK))
    run_app(app, batches=("run", "retry", "watch", "demo"))
