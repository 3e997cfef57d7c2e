"""The command that measures what stain, focus and compression a model knows."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("range")
@click.option("--index", type=_PATH, required=True, help="Index of the data.")
@click.option("--root", type=_PATH, required=True, help="What the index's paths are below.")
@click.option("-o", "--out", type=_PATH, required=True, help="range.json, to lie beside the model's card.")
def training_range(index: Path, root: Path, out: Path) -> None:
    """Measure the stain, focus and compression of the split "train", and how well others are told from it.

    Of each image of the split "val" blurred, compressed and coloured versions are made.
    """
    from rich.console import Console
    from rich.table import Table

    from minugan_training.data.index import read_index
    from minugan_training.evaluation import sentinel
    from wsi_minugan.outputs.atomic import write_text

    entries = read_index(index)
    train, val, test = (
        list(sentinel.measured(root, [e for e in entries if e.split == split], changes))
        for split, changes in (("train", ("",)), ("val", ("", *sentinel.MADE)), ("test", ("",)))
    )
    known = sentinel.training_range(train)
    write_text(out, known.model_dump_json(indent=2) + "\n")
    table = Table("what", "told by", "AUROC", "warned of", "of those as they are", "images")
    for told in (*sentinel.told_changes(val, known), *sentinel.told_scanners(train, [*val, *test])):
        shares = (f"{100 * share:.0f} %" for share in (told.warned, told.warned_plain))
        table.add_row(told.what, told.kind, f"{told.auroc:.3f}", *shares, str(told.images))
    Console(width=120).print(table)
