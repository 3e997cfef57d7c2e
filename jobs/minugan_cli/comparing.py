"""How far readers, runs or scanners agree."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_minugan.errors import InputError

if TYPE_CHECKING:
    from wsi_minugan.counting.agreement import Agreement, Figure, PairAgreement


def agree(
    sources: Sequence[Path],
    mpp: float | None,
    radius_um: float,
    hpf_diameter_mm: float,
    places: bool,
    out: Path | None,
) -> None:
    """Compare readers, print a table, and write the figures, the unmatched mitoses and a picture.

    Parameters
    ----------
    sources : sequence of Path
        Two readers or more: result folders, GeoJSON files, or folders of these.
    mpp : float, optional
        Resolution of coordinates in GeoJSON files, um/px.
    radius_um : float
        Greatest distance at which two marks are one mitosis.
    hpf_diameter_mm : float
        Diameter of a high-power field, for Nottingham scores.
    places : bool
        Whether single mitoses are compared. Leave it out where each reader had another scan.
    out : Path, optional
        Folder for agreement.json, unmatched.csv and agreement.svg.

    Raises
    ------
    InputError
        If fewer than two readers are named, or their places cannot be compared.
    """
    from wsi_minugan.counting.agreement import compare
    from wsi_minugan.pipeline.readers import read_readers, require_one_scan

    if len(sources) < 2:
        raise InputError("Name two readers or more: result folders, GeoJSON files, or folders of these.")
    readings, left_out = read_readers(sources, mpp, hpf_diameter_mm)
    if places:
        require_one_scan(readings)
    found = compare(readings, radius_um, places, left_out)
    _print(found)
    if out is not None:
        _write(found, out)


def _print(found: Agreement) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("readers", "cases", "F1 of mitoses", "bias of counts", "ICC of counts", "kappa of scores")
    for p in found.pairs:
        table.add_row(
            Text(f"{p.first} – {p.second}", overflow="fold"),
            str(p.cases),
            _words(p.f1),
            _words(p.limits.bias if p.limits else None),
            _words(p.icc),
            _words(p.kappa),
        )
    Console().print(table)
    if found.left_out:
        click.echo(f"Not read by all, and left out: {', '.join(found.left_out)}.", err=True)
    if len(found.cases) < 3:
        click.echo("Fewer than three cases: intervals, limits of agreement and ICC need more.", err=True)


def _words(figure: Figure | None) -> str:
    if figure is None or figure.value != figure.value:
        return "–"
    interval = (
        "" if figure.low is None or figure.high is None else f" ({figure.low:.2f} to {figure.high:.2f})"
    )
    return f"{figure.value:.2f}{interval}"


def _write(found: Agreement, out: Path) -> None:
    from wsi_minugan.outputs.agreement_chart import Panel, write_chart
    from wsi_minugan.outputs.atomic import write_text

    write_text(out / "agreement.json", found.model_dump_json(indent=2) + "\n", parents=True)
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["case", "reader", "other_reader", "x_px", "y_px"])
    for p in found.pairs:
        for u in p.unmatched:
            other = p.second if u.reader == p.first else p.first
            table.writerow([u.case, u.reader, other, f"{u.x_px:.2f}", f"{u.y_px:.2f}"])
    write_text(out / "unmatched.csv", rows.getvalue())
    write_chart(
        out / "agreement.svg", [Panel(f"{p.first} – {p.second}", p.counts, _lines(p)) for p in found.pairs]
    )
    click.echo(f"Written: {out / 'agreement.json'}, unmatched.csv, agreement.svg")


def _lines(pair: PairAgreement) -> list[tuple[str, float]]:
    limits = pair.limits
    if limits is None:
        return []
    return [("bias", limits.bias.value), ("2.5 %", limits.lower.value), ("97.5 %", limits.upper.value)]
