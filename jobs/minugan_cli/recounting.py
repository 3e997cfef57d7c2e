"""Counting again, without the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minugan_cli.options import COUNTING, flag_of
from wsi_minugan.config import RunSettings, load_settings
from wsi_minugan.errors import InputError, SettingsError
from wsi_minugan.words import pluralize

if TYPE_CHECKING:
    from wsi_minugan.counting.models import Count
    from wsi_minugan.outputs.geojson import Marks
    from wsi_minugan.pipeline.recount import Finished


@dataclass(frozen=True)
class _Source:
    """What is counted: the file of mitoses, and of a result folder what is known of its slide."""

    path: Path
    slide_id: str
    mpp: float
    finished: Finished | None = None

    @property
    def origin_px(self) -> tuple[int, int]:
        """What the file's coordinates count from, where it does not say it."""
        return (0, 0) if self.finished is None else self.finished.manifest.geojson_origin_px


def recount(
    source: Path, corrected: Path | None, mpp: float | None, flags: dict[str, Any], out: Path | None
) -> None:
    """Count the mitoses of a result folder, of a GeoJSON, or of a corrected one with its folder; write or print count.json.

    Parameters
    ----------
    source : Path
        A slide's result folder, or a GeoJSON of mitoses.
    corrected : Path, optional
        A GeoJSON that takes the place of the folder's own. The two may be named in either
        order.
    mpp : float, optional
        Resolution of the coordinates, um/px. A GeoJSON alone needs it.
    flags : dict of str to any
        Settings of `COUNTING`; None where not given.
    out : Path, optional
        File to write; by default the count is printed as JSON.
    """
    from wsi_minugan.outputs.atomic import write_text
    from wsi_minugan.outputs.geojson import read_marks

    settings = _settings(flags)
    source, corrected = _folder_first(source, corrected)
    opened = _open(source, mpp)
    counted = corrected or opened.path
    marks = read_marks(counted, opened.origin_px)
    _tell(marks)
    count = _counted(opened, marks, settings, counted)
    for warning in count.warnings:
        click.echo(warning, err=True)
    text = count.model_dump_json(indent=2)
    spot = count.hotspot
    told = f"{pluralize(count.mitoses, 'mitosis', 'mitoses')}; {spot.mitoses} in the hot spot of {spot.area_mm2:.2f} mm2."
    if out is None:
        click.echo(text)
        # The text is longer than a terminal: what matters is its last line there, and in no pipe.
        click.echo(f"{told} To write this to a file: -o count.json", err=True)
        return
    write_text(out, text + "\n", parents=True)
    click.echo(f"{told} Written: {out}")


def _folder_first(source: Path, corrected: Path | None) -> tuple[Path, Path | None]:
    """Return a folder and the GeoJSON that takes the place of its own, in whichever order they were named."""
    if corrected is None:
        return source, None
    if source.is_dir() == corrected.is_dir():
        raise InputError(f"Name one slide's folder and one GeoJSON; {source} and {corrected} are not these.")
    return (source, corrected) if source.is_dir() else (corrected, source)


def _settings(flags: dict[str, Any]) -> RunSettings:
    """Return the settings; what does not fit is named as the user wrote it."""
    try:
        return load_settings(None, flags)
    except SettingsError as e:
        text = str(e).replace("run --help", "count --help")
        for name in COUNTING:
            text = text.replace(f"{name}:", f"{flag_of(name)}:")
        raise SettingsError(text) from e


def _counted(opened: _Source, marks: Marks, settings: RunSettings, path: Path) -> Count:
    import numpy as np

    from wsi_minugan.counting.count import count_mitoses
    from wsi_minugan.counting.regions import points_in
    from wsi_minugan.counting.settings import Ground
    from wsi_minugan.pipeline.ground import options_of
    from wsi_minugan.pipeline.recount import drawn_over
    from wsi_minugan.review.result import REVIEWED

    drawn = drawn_over(opened.finished, settings, opened.slide_id, opened.origin_px)
    kept = np.ones(len(marks.points_px), bool)
    if drawn.allowed is not None:
        kept = points_in(drawn.allowed, marks.points_px)
    scores = marks.scores[kept]
    # Of what a person changed the model's errors say nothing.
    known = drawn.reliability if opened.finished is None or _is_the_runs(opened.finished, path) else REVIEWED
    ground = Ground(drawn.tissue, None if np.isnan(scores).any() else scores, drawn.regions, known)
    return count_mitoses(
        marks.points_px[kept],
        opened.mpp,
        settings.hotspot_area_mm2,
        settings.hpf_diameter_mm,
        drawn.tissue_mm2,
        ground,
        options_of(settings),
    )


def _is_the_runs(finished: Finished, path: Path) -> bool:
    """Return whether a file holds the mitoses as the run wrote them."""
    from wsi_minugan.hashing import sha256_of

    return sha256_of(path) == finished.manifest.files.get("mitoses.geojson")


def _open(source: Path, mpp: float | None) -> _Source:
    from wsi_minugan.pipeline.recount import open_finished

    if not source.exists():
        raise InputError(
            f"There is no file or folder {source}. Check the name, and whether the drive is connected."
        )
    if not source.is_dir():
        return _Source(source, source.name.split(".")[0], _checked(mpp, source))
    try:
        names = {p.name for p in source.iterdir()}
    except OSError as e:
        raise InputError(
            f"The folder {source} cannot be read: {e.strerror or e}. Check who may read it."
        ) from e
    if "slides.csv" in names:
        raise InputError(f"{source} holds a whole batch. Name the folder of one slide in it: {source}/SLIDE.")
    finished = open_finished(source)
    slide = finished.manifest.slide
    known = mpp if mpp is not None else slide.mpp
    return _Source(source / "mitoses.geojson", slide.slide_id, _checked(known, source), finished)


def _checked(mpp: float | None, source: Path) -> float:
    from wsi_minugan.slides.reader import MPP_MAX, MPP_MIN

    if mpp is None:
        raise InputError(f"A GeoJSON does not say its resolution. Give --mpp for {source}.")
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise InputError(f"{mpp:g} um/px is not plausible (0.05 to 2). Check --mpp.")
    return mpp


def _tell(marks: Marks) -> None:
    """Say which classes were counted and which were not, and what was counted only because nothing speaks against it."""
    counted_too = [f"{n} {label}" for label, n in sorted(marks.by_class.items()) if label]
    if counted_too:
        click.echo(f"Counted, by class: {', '.join(counted_too)}.", err=True)
    others = [f"{n} {label}" for label, n in sorted(marks.left_out.items())]
    if others:
        click.echo(f"Not counted, by class: {', '.join(others)}.", err=True)
    if marks.unclassed:
        click.echo(
            f"Counted without a class: {pluralize(marks.unclassed, 'object')}. Give other objects a class in QuPath.",
            err=True,
        )
