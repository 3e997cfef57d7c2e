"""Commands about reviews: review takes a corrected GeoJSON, view opens the viewer."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_minugan.errors import InputError, MinuganError
from wsi_minugan.words import counted

if TYPE_CHECKING:
    from wsi_minugan.review.compare import Kind
    from wsi_minugan.review.result import Result
    from wsi_minugan.review.store import Saved

_WORDS: dict[Kind, str] = {
    "kept": "kept",
    "moved": "moved",
    "reclassified": "given another class",
    "removed": "removed",
    "added": "added",
}


def login_name() -> str:
    """Return the name that the system knows the user by."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "reviewer"


def review(folder: Path, corrected: Path, reviewer: str | None, slide: Path | None) -> None:
    """Compare a corrected GeoJSON with a slide's result, write the review beside it, and tell what changed."""
    from wsi_minugan.outputs.objects import read_objects
    from wsi_minugan.review.result import open_result
    from wsi_minugan.review.store import save_review

    if (folder / "slides.csv").is_file():
        raise InputError(f"{folder} holds a whole batch. Name the folder of one slide in it: {folder}/SLIDE.")
    result = open_result(folder)
    objects = read_objects(corrected, result.sealed.geojson_origin_px)
    saved = save_review(result, objects, reviewer or login_name(), "review")
    _tell(saved)
    _teach(result, saved, slide)
    click.echo(f"Written: {saved.folder}")


def _tell(saved: Saved) -> None:
    file = saved.file
    click.echo(", ".join(f"{file.tally[kind]} {words}" for kind, words in _WORDS.items()) + ".")
    for name, before, after in (
        ("mitoses", file.before.mitoses, file.after.mitoses),
        ("in the hot spot", file.before.hotspot.mitoses, file.after.hotspot.mitoses),
        ("Nottingham score", file.before.scores.nottingham, file.after.scores.nottingham),
        ("TUPAC16 score", file.before.scores.tupac16, file.after.scores.tupac16),
    ):
        old, new = ("not defined" if v is None else v for v in (before, after))
        click.echo(f"{name:18}{old}" + (f" -> {new}" if new != old else ""))
    for warning in file.after.warnings:
        click.echo(warning, err=True)


def _teach(result: Result, saved: Saved, slide: Path | None) -> None:
    """Write what training can learn; without the slide's pixels the review is whole, but has no images."""
    from wsi_minugan.review.lessons import INDEX, write_lessons
    from wsi_minugan.review.pixels import frame_of, open_pixels

    try:
        reader = open_pixels(result.sealed, slide or slide_path(result.folder))
    except MinuganError as e:
        if slide is not None:
            raise
        click.echo(f"No {INDEX} for training: {e}", err=True)
        return
    try:
        number = write_lessons(result, saved, reader, frame_of(result.sealed))
    finally:
        reader.close()
    click.echo(f"{counted(number, 'image')} for training: {saved.folder / INDEX}")


def slide_path(folder: Path) -> Path:
    """Return where the slide of a result lay when it was run.

    Raises
    ------
    InputError
        If the output folder does not say it.
    """
    from minugan_jobs.ledger import LEDGER
    from minugan_jobs.outfolder import slides_of

    out = folder.resolve().parent
    if (out / LEDGER).is_file():
        for found in slides_of(out):
            if found.slide_id == folder.resolve().name:
                if found.url:
                    raise InputError(
                        f"The slide of {folder} lies at {found.url}. Copy it here, and name it with --slide."
                    )
                return found.path
    raise InputError(f"{folder} does not say where its slide lies. Name it with --slide.")
