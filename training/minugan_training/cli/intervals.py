"""`minugan-train intervals`: a model's errors by patient, and whether intervals from them hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minugan_training.cli.options import INDEX, PATH, RADIUS_UM, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minugan_training.data.index import Entry
    from minugan_training.evaluation.intervals import LeftOut


@click.command()
@click.option("--model", default="default", show_default=True, help="Bundle whose errors are measured.")
@INDEX
@ROOT
@click.option("--split", "splits", multiple=True, help="Of the index; default all splits.")
@click.option("--dataset", "datasets", multiple=True, help="Of the index; default all data sets.")
@click.option("--fields", type=click.IntRange(1), help="Only so many fields of each patient, for a trial.")
@RADIUS_UM
@click.option(
    "--reader-f1", type=click.FloatRange(0, 1, min_open=True), help="F1 of two readers, for the card."
)
@click.option("--chart", type=PATH, help="Draw each patient's interval and the experts' number here, as PNG.")
@click.option("-o", "--out", type=PATH, help="Write the card's `reliability` here, as JSON.")
def intervals(
    model: str,
    index: Path,
    root: Path,
    splits: tuple[str, ...],
    datasets: tuple[str, ...],
    fields: int | None,
    radius_um: float,
    reader_f1: float | None,
    chart: Path | None,
    out: Path | None,
) -> None:
    """Measure a model's errors by patient, and check intervals: each patient's from all others. Exit status 1 below 90 %."""
    from minugan_training.data.index import read_index
    from minugan_training.evaluation.intervals import (
        LEAST_COVERED,
        draw_intervals,
        leave_one_out,
        measure_errors,
    )
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.outputs.atomic import write_text

    entries = [
        e
        for e in read_index(index)
        if (not splits or e.split in splits) and (not datasets or e.dataset in datasets)
    ]
    bundle = load_bundle(find_bundle(model))
    measured = measure_errors(bundle, root, _few(entries, fields), radius_um, reader_f1)
    if out is not None:
        write_text(out, measured.model_dump_json(indent=2) + "\n", parents=True)
    found = leave_one_out(measured.operating_points["balanced"].patients)
    _print(found)
    if chart is not None:
        draw_intervals(chart, found)
    covered = sum(f.covered for f in found) / len(found)
    click.echo(f"The interval holds the experts' number in {covered:.0%} of {len(found)} patients.")
    sys.exit(0 if covered >= LEAST_COVERED else 1)


def _few(entries: Sequence[Entry], fields: int | None) -> list[Entry]:
    """Return all, or the first fields of each patient."""
    from minugan_training.evaluation.detect import full_fields

    wanted = full_fields(entries)
    if fields is None:
        return wanted
    seen: dict[str, int] = {}
    kept = []
    for entry in wanted:
        seen[entry.patient] = seen.get(entry.patient, 0) + 1
        if seen[entry.patient] <= fields:
            kept.append(entry)
    return kept


def _print(found: Sequence[LeftOut]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("patient", "mm2", "found", "experts", "95 % interval from the others", "")
    for f in found:
        table.add_row(
            f.patient, f"{f.area_mm2:.2f}", str(f.found), str(f.truths), f"{f.low} to {f.high}",
            "" if f.covered else "outside",
        )  # fmt: skip
    Console(width=100).print(table)
