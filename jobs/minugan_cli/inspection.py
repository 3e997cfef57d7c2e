"""Commands that look and change nothing: inspect, doctor, models."""

from __future__ import annotations

import platform
import shutil
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_minugan import __version__
from wsi_minugan.errors import MinuganError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wsi_minugan.minugan.card import ModelCard
    from wsi_minugan.slides.reader import SlideInfo, SlideReader

_IN_SHORT = {"F1", "precision", "recall", "false positives per mm2"}
"""Figures of the card that are shown on a terminal."""


def inspect(
    path: Path, mpp: float | None, reader_name: str, png: Path | None, model: str = "default"
) -> None:
    """Print size, levels, resolution and tissue of one slide as a model would see it, and draw its tissue on request.

    Parameters
    ----------
    path : Path
        The slide.
    mpp : float, optional
        The user's resolution of level 0, um/px; it wins over the slide's own.
    reader_name : str
        "auto", "openslide" or "tiatoolbox".
    png : Path, optional
        Picture of the tissue to write.
    model : str
        Name or folder of the bundle whose resolution the slide is analysed at.
    """
    from wsi_minugan.geometry import analysis_frame
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.slides.checks.survey import survey
    from wsi_minugan.slides.opening import open_slide
    from wsi_minugan.slides.reader import resolve_mpp, unused_mpp

    model_mpp = load_bundle(find_bundle(model)).card.mpp
    with closing(open_slide(path, reader_name)) as reader:
        _print_info(reader.info)
        resolved, source = resolve_mpp(reader.info, None, mpp)
        frame = analysis_frame(reader.info.width_px, reader.info.height_px, resolved, model_mpp)
        seen = survey(reader, frame)
        tissue, unused = seen.tissue, unused_mpp(reader.info, resolved, mpp, None)
        click.echo(f"resolution  {resolved:.4f} um/px ({source})")
        click.echo(f"analysis    {frame.width_px} x {frame.height_px} px at {frame.mpp:.4f} um/px")
        click.echo(f"tissue      {tissue.area_mm2(frame.mpp):.2f} mm2")
        for note in (*seen.info.notes, *([unused] if unused else [])):
            click.echo(f"note        {note}")
        if png is not None:
            _draw_tissue(reader, png, tissue.mask, seen.info)
            click.echo(f"picture     {png}")


def _print_info(info: SlideInfo) -> None:
    click.echo(f"slide       {info.path}")
    click.echo(f"size        {info.width_px} x {info.height_px} px")
    for k, level in enumerate(info.levels):
        click.echo(f"level {k}     {level.width_px} x {level.height_px} px, 1/{level.downsample:g}")
    click.echo(f"vendor      {info.vendor}")
    click.echo(f"objective   {f'{info.objective:g}x' if info.objective else 'not said'}")


def _draw_tissue(reader: SlideReader, png: Path, mask: NDArray[np.bool_], info: SlideInfo) -> None:
    from wsi_minugan.outputs.overview import draw_tissue
    from wsi_minugan.slides.analysis import thumbnail

    draw_tissue(png, thumbnail(reader, 1600, info.levels), mask)


def doctor() -> int:
    """Print one line for each thing that a run needs, and what to do where it is missing.

    Returns
    -------
    int
        Exit status: 0 where nothing is missing, else 1.
    """
    checks = [
        _check_python(),
        _check_openslide(),
        _check_torch(),
        _check_model(),
        _check_disk(),
        _check_extra(),
    ]
    for good, text in checks:
        click.echo(f"{'ok  ' if good else 'FIX '} {text}")
    return 0 if all(good for good, _ in checks) else 1


def _check_python() -> tuple[bool, str]:
    return True, f"Python {platform.python_version()}, wsi-minugan {__version__}"


def _check_openslide() -> tuple[bool, str]:
    try:
        import openslide
    except (ImportError, OSError) as e:
        return False, f"OpenSlide does not load ({e}). Do: pip install openslide-python openslide-bin"
    return True, f"OpenSlide {openslide.__library_version__}"


def _check_torch() -> tuple[bool, str]:
    try:
        import torch
    except (ImportError, OSError) as e:
        return False, f"torch does not load ({e}). Do: pip install --force-reinstall torch"

    if torch.cuda.is_available():
        return True, f"torch {torch.__version__}, CUDA device {torch.cuda.get_device_name(0)}"
    return True, f"torch {torch.__version__}, CPU only (no CUDA device found; runs take longer)"


def _check_model() -> tuple[bool, str]:
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    try:
        bundle = load_bundle(find_bundle("default"))
    except MinuganError as e:
        return False, str(e)
    return True, f"model {bundle.card.name} {bundle.card.version}, weights as its card says"


def _check_disk() -> tuple[bool, str]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    text = f"{free_gb:.0f} GB free in {Path.cwd()}"
    return free_gb > 5, text if free_gb > 5 else text + "; a slide's masks can take 1 GB. Free some space."


def _check_extra() -> tuple[bool, str]:
    if find_spec("tiatoolbox") is None:
        return (
            True,
            "TIAToolbox not installed (only --reader tiatoolbox needs it: pip install 'wsi-minugan[tiatoolbox]')",
        )
    from wsi_minugan.pipeline.facts import version_of

    return True, f"TIAToolbox {version_of('tiatoolbox')}"


def list_models() -> None:
    """Print a line for each bundled model."""
    from wsi_minugan.minugan.bundle import list_bundles, load_bundle

    for path in list_bundles():
        card = load_bundle(path).card
        click.echo(
            f"{path.name:12} {card.version:10} ngf {card.architecture.ngf}, {card.mpp} um/px, {card.licence}"
        )


def show_model(name: str) -> None:
    """Print a model's card as JSON; on a terminal, which shows only its end, then what matters most.

    Parameters
    ----------
    name : str
        Name of a bundled model, or a bundle's folder.
    """
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    card = load_bundle(find_bundle(name)).card
    click.echo(card.model_dump_json(indent=2))
    if sys.stdout.isatty():
        click.echo("\n" + "\n".join(card_in_short(card)))


def card_in_short(card: ModelCard) -> list[str]:
    """Return the lines that tell what a model is, what it learnt from, and how well it does.

    Parameters
    ----------
    card : ModelCard
        The card.

    Returns
    -------
    list of str
        Lines; figures with their interval where the card has one.
    """
    lines = [f"{card.name} {card.version}, {card.mpp} um/px. {card.licence.capitalize()}.", "Trained on:"]
    lines += [f"  - {text}" for text in card.training_data]
    for row in card.scores.get("rows", []):
        if row["figure"] not in _IN_SHORT or not row["data"].endswith("all"):
            continue
        known = row["low"] is not None and row["high"] is not None
        interval = f" ({row['low']:.2f} to {row['high']:.2f})" if known else ""
        lines.append(f"{row['figure']}, {row['data']}, {row['split']} split: {row['value']:.2f}{interval}")
    if card.figures_of:
        lines.append(f"Figures are of: {card.figures_of}")
    return [*lines, "All of it: wsi-minugan models show | less"]


def verify_model(name: str) -> None:
    """Check a bundle; a damaged one raises ModelError.

    Parameters
    ----------
    name : str
        Name of a bundled model, or a bundle's folder.
    """
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    bundle = load_bundle(find_bundle(name))
    click.echo(f"{bundle.path}: the weights have the digest on the card ({bundle.card.weights_sha256}).")
