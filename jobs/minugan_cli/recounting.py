"""Counting again, without the network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_minugan.config import HPF_MAX_MM, HPF_MIN_MM
from wsi_minugan.errors import InputError
from wsi_minugan.words import pluralize

if TYPE_CHECKING:
    from wsi_minugan.counting.hotspot import TissueFraction
    from wsi_minugan.outputs.geojson import Marks


def recount(
    source: Path,
    corrected: Path | None,
    mpp: float | None,
    area_mm2: float | None,
    hpf_diameter_mm: float,
    out: Path | None,
) -> None:
    """Count the mitoses of a result folder, of a GeoJSON, or of a corrected one with its folder; write or print count.json."""
    from wsi_minugan.counting.count import count_mitoses
    from wsi_minugan.outputs.atomic import write_text
    from wsi_minugan.outputs.geojson import read_marks

    hotspot_mm2 = _hotspot_mm2(area_mm2, hpf_diameter_mm)
    source, corrected = _folder_first(source, corrected)
    path, origin_px, known_mpp, analysed_mm2, tissue = _open(source)
    path = corrected or path
    marks = read_marks(path, origin_px)
    _tell(marks)
    count = count_mitoses(
        marks.points_px,
        _checked(mpp if mpp is not None else known_mpp, source),
        hotspot_mm2,
        hpf_diameter_mm,
        analysed_mm2,
        tissue,
    )
    for warning in count.warnings:
        click.echo(warning, err=True)
    text = count.model_dump_json(indent=2)
    if out is None:
        click.echo(text)
        return
    write_text(out, text + "\n", parents=True)
    spot = count.hotspot
    click.echo(
        f"{pluralize(count.mitoses, 'mitosis', 'mitoses')}; {spot.mitoses} in the hot spot of {spot.area_mm2:.2f} mm2. Written: {out}"
    )


def _folder_first(source: Path, corrected: Path | None) -> tuple[Path, Path | None]:
    """Return a folder and the GeoJSON that takes the place of its own, in whichever order they were named."""
    if corrected is None:
        return source, None
    if source.is_dir() == corrected.is_dir():
        raise InputError(f"Name one slide's folder and one GeoJSON; {source} and {corrected} are not these.")
    return (source, corrected) if source.is_dir() else (corrected, source)


def _open(
    source: Path,
) -> tuple[Path, tuple[int, int], float | None, float | None, TissueFraction | None]:
    """Return the file of mitoses, and of a result folder what its file counts from, its resolution, analysed area and tissue."""
    from wsi_minugan.outputs.manifest import read_manifest
    from wsi_minugan.pipeline.recount import area_of, tissue_of_results

    if not source.is_dir():
        return source, (0, 0), None, None, None
    try:
        names = {p.name for p in source.iterdir()}
    except OSError as e:
        raise InputError(
            f"The folder {source} cannot be read: {e.strerror or e}. Check who may read it."
        ) from e
    if "slides.csv" in names:
        raise InputError(f"{source} holds a whole batch. Name the folder of one slide in it: {source}/SLIDE.")
    written = read_manifest(source)
    path, origin_px = source / "mitoses.geojson", written.geojson_origin_px
    return path, origin_px, written.slide.mpp, area_of(source), tissue_of_results(source)


def _hotspot_mm2(area_mm2: float | None, hpf_diameter_mm: float) -> float:
    if not HPF_MIN_MM < hpf_diameter_mm < HPF_MAX_MM:
        raise InputError(
            f"A field diameter of {hpf_diameter_mm:g} mm is not plausible (0.1 to 2). Check --hpf-diameter-mm."
        )
    if area_mm2 is None:
        return 10 * math.pi * (hpf_diameter_mm / 2) ** 2
    if not 0 < area_mm2 < math.inf:
        raise InputError("The area of the hot spot must be a number above 0. Check --area-mm2.")
    return area_mm2


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
