"""The commands of `minugan-train data`: indexes of data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from minugan_training.cli.options import PATH, ROOT


@click.group()
def data() -> None:
    """Import and check data sets."""


@data.command("import")
@click.argument("layout")
@click.argument("root", type=PATH)
@click.option(
    "-o", "--out", type=PATH, default=Path("index.csv"), show_default=True, help="The index to write."
)
@click.option("--root", "below", type=PATH, help="What the index's paths are to be below.  [default: ROOT]")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Split of the images that the layout itself puts in none.",
)
@click.option("--dataset", default="", help="Name of the set, in place of the layout's.")
@click.option("--append", is_flag=True, help="Add to the index, if there is one; no image twice.")
def data_import(
    layout: str, root: Path, out: Path, below: Path | None, split: Any, dataset: str, append: bool
) -> None:
    """Make an index of the data set in ROOT, which has a published LAYOUT (tupac16, icpr12, icpr14, midog, monuseg, rgb, shared)."""
    from minugan_training.data.index import read_index, write_index
    from minugan_training.importing.collect import import_set, joined

    entries = import_set(layout, root, below, split or "", dataset)
    there = read_index(out) if append and out.exists() else []
    write_index(out, joined(there, entries))
    click.echo(f"{len(entries)} images{f' added to {len(there)}' if there else ''}. Written: {out}")


@data.command("check")
@click.argument("index", type=PATH)
@ROOT
def data_check(index: Path, root: Path) -> None:
    """Find files that are missing or cut short, wrong sizes, truth outside its image, and patients in two splits."""
    from rich.console import Console
    from rich.table import Table

    from minugan_training.data.check import problems_of, summary_of
    from minugan_training.data.index import read_index

    entries = read_index(index)
    table = Table("data set", "split", "images", "patients", "mm2", "mitosis points")
    for row in summary_of(entries):
        table.add_row(*map(str, row))
    Console().print(table)
    problems = problems_of(root, entries)
    for text in problems:
        click.echo(text)
    click.echo(f"{len(problems)} problems.")
    sys.exit(1 if problems else 0)


@data.command("schema")
@click.option("-o", "--out", type=PATH, help="Write it to a file.")
def data_schema(out: Path | None) -> None:
    """Print the JSON Schema of an index's rows."""
    from minugan_training.data.index_schema import index_schema
    from wsi_minugan.outputs.atomic import write_text

    if out is None:
        click.echo(index_schema(), nl=False)
    else:
        write_text(out, index_schema(), parents=True)


@data.command("outlines")
@click.argument("index", type=PATH)
@ROOT
def data_outlines(index: Path, root: Path) -> None:
    """Compare weak outlines of mitoses, made from their centres alone, with the experts' outlines in the index."""
    from minugan_training.data.index import read_index
    from minugan_training.evaluation.weak_scores import outline_scores

    for split, scores in outline_scores(root, read_index(index)).items():
        click.echo(f"{split}: Dice {sum(scores) / len(scores):.3f}, mean of {len(scores)} mitoses")
