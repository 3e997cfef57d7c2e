"""Commands that compare: the stain, focus and compression that a model knows, and how it stands changed images."""

from __future__ import annotations

from pathlib import Path

import click

from minugan_training.cli.options import FIELDS_OF_SPLITS, INDEX, PATH, RADIUS_UM, ROOT


@click.command("range")
@INDEX
@ROOT
@click.option("-o", "--out", type=PATH, required=True, help="range.json, to lie beside the model's card.")
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


@click.command()
@click.option("--model", default="default", show_default=True, help="Bundle that is measured.")
@INDEX
@ROOT
@FIELDS_OF_SPLITS
@click.option(
    "--change",
    "names",
    multiple=True,
    help="One of: none, blur, sharpen, haematoxylin-0.7, haematoxylin-1.4, eosin-0.6, eosin-1.5, brighter, darker, red, blue, "
    "jpeg-50, mpp-0.9, mpp-1.1. All, if none is named.",
)
@RADIUS_UM
@click.option("-o", "--out", type=PATH, help="JSON with all figures by patient and scanner.")
def robustness(
    model: str,
    index: Path,
    root: Path,
    splits: tuple[str, ...],
    names: tuple[str, ...],
    radius_um: float,
    out: Path | None,
) -> None:
    """Measure a model on images changed as another laboratory or scanner might, at its card's operating point.

    The whole fields of the index are changed one way after another. Each change takes as long as `calibrate`.
    """
    import json

    from minugan_training.data.index import read_index
    from minugan_training.evaluation.robustness import CHANGES, changed_figures
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.outputs.atomic import write_text

    unknown = sorted(set(names) - CHANGES.keys())
    if unknown:
        raise click.BadParameter(
            f"no change is named {', '.join(unknown)}. Known: {', '.join(CHANGES)}.", param_hint="--change"
        )
    entries = [e for e in read_index(index) if e.split in splits]
    measured = []
    for found in changed_figures(
        load_bundle(find_bundle(model)), root, entries, radius_um, names or list(CHANGES)
    ):
        click.echo(
            f"{CHANGES[found.change].told}: F1 {found.mean_f1:.3f}, recall {found.recall:.2f}, precision {found.precision:.2f}, "
            f"worst {found.worst_false_positives_per_mm2:.1f} false positives a mm2"
        )
        measured.append(found.model_dump(mode="json"))
        if out is not None:
            write_text(out, json.dumps(measured, indent=2) + "\n", parents=True)
