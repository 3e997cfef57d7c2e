"""Counting again, without the network."""

from __future__ import annotations

import math
from pathlib import Path

import click

from wsi_minugan.errors import InputError


def recount(
    source: Path, mpp: float | None, area_mm2: float | None, hpf_diameter_mm: float, out: Path | None
) -> None:
    """Count the mitoses of a result folder or a GeoJSON, and write or print count.json."""
    from wsi_minugan.counting.count import count_mitoses
    from wsi_minugan.outputs.atomic import write_text
    from wsi_minugan.outputs.geojson import read_points
    from wsi_minugan.outputs.manifest import read_manifest
    from wsi_minugan.recount import area_of, tissue_of_results
    from wsi_minugan.slides.reader import MPP_MAX, MPP_MIN

    hotspot_mm2 = area_mm2 if area_mm2 is not None else 10 * math.pi * (hpf_diameter_mm / 2) ** 2
    if hotspot_mm2 <= 0:
        raise InputError("The area of the hot spot must be above 0. Check --area-mm2.")
    tissue, analysed_mm2, path = None, None, source
    if source.is_dir():
        path = source / "mitoses.geojson"
        mpp = mpp or read_manifest(source).slide.mpp
        tissue, analysed_mm2 = tissue_of_results(source), area_of(source)
    if mpp is None:
        raise InputError(f"A GeoJSON does not say its resolution. Give --mpp for {source}.")
    if not MPP_MIN <= mpp <= MPP_MAX:
        raise InputError(f"{mpp:g} um/px is not plausible (0.05 to 2). Check --mpp.")
    count = count_mitoses(read_points(path), mpp, hotspot_mm2, hpf_diameter_mm, analysed_mm2, tissue)
    text = count.model_dump_json(indent=2)
    if out is None:
        click.echo(text)
        return
    write_text(out, text + "\n")
    spot = count.hotspot
    click.echo(
        f"{count.mitoses} mitoses; {spot.mitoses} in the hot spot of {spot.area_mm2:.2f} mm2. Written: {out}"
    )
