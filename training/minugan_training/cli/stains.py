"""`minugan-train stain`: the stains of the training data, for a model's card."""

from __future__ import annotations

from pathlib import Path

import click

from minugan_training.cli.options import INDEX, PATH, ROOT


@click.command()
@INDEX
@ROOT
@click.option("--split", "splits", multiple=True, default=("train",), show_default=True, help="Of the index.")
@click.option(
    "--switched-on/--switched-off",
    default=False,
    show_default=True,
    help="Whether `run --stain auto` brings slides to the target.",
)
@click.option("-o", "--out", type=PATH, required=True, help="JSON for `export --stain`.")
def stain(index: Path, root: Path, splits: tuple[str, ...], switched_on: bool, out: Path) -> None:
    """Measure the stain of each patient on each scanner, of images whose mitoses are known: a target, and the range of all."""
    from minugan_training.data.index import read_index
    from minugan_training.data.stain import on_the_card, stains_of
    from wsi_minugan.outputs.atomic import write_text

    entries = [e for e in read_index(index) if e.split in splits and e.mitoses != "unknown"]
    found = on_the_card(stains_of(root, entries), switched_on)
    write_text(out, found.model_dump_json(indent=2) + "\n", parents=True)
    for name, figures in (("target", found.target), ("least", found.low), ("greatest", found.high)):
        words = ", ".join(
            f"{s} {m:.2f} (spread {v:.2f})"
            for s, m, v in zip(("haematoxylin", "eosin", "rest"), figures.mean, figures.spread, strict=True)
        )
        click.echo(f"{name}: {words}")
    click.echo(f"{found.slides} slides. Written: {out}")
