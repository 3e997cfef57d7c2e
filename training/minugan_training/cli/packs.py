"""Packs of images and of candidates; weights in parts, and their mean."""

from __future__ import annotations

from pathlib import Path

import click

from minugan_training.cli.options import INDEX, PATH, ROOT

_PACK = click.option("-o", "--out", type=PATH, required=True, help="The pack to write.")
_MEGABYTES = click.option(
    "--megabytes",
    type=click.FloatRange(0, min_open=True),
    default=28.0,
    show_default=True,
    help="Its greatest size.",
)


@click.command()
@click.argument("experiment", type=PATH)
@INDEX
@ROOT
@_PACK
@_MEGABYTES
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    default=80,
    show_default=True,
    help="JPEG quality of its images.",
)
def pack(experiment: Path, index: Path, root: Path, out: Path, megabytes: float, quality: int) -> None:
    """Write what an EXPERIMENT trains on into one small file, for a machine that has nothing else."""
    from minugan_training.data.index import read_index
    from minugan_training.fitting.pseudo_labels import pool_for
    from minugan_training.packs.pack import write_pack
    from minugan_training.settings import load_experiment

    settings = load_experiment(experiment)
    pool = pool_for(settings, root, read_index(index))
    told = write_pack(settings, pool, out, round(megabytes * 1e6), quality)
    for (packed, of), what in (
        (told.regions, "regions"),
        (told.mitoses, "mitoses"),
        (told.look_alikes, "look-alikes"),
    ):
        click.echo(f"{packed} of {of} {what}")
    click.echo(f"{told.patients} patients, {told.mpixels:.1f} million pixels")
    click.echo(f"Written: {out}, {told.size_bytes / 1e6:.2f} MB")


@click.command("pack-candidates")
@click.argument("file", type=PATH)
@_PACK
@_MEGABYTES
@click.option(
    "--quality", type=click.IntRange(1, 100), default=80, show_default=True, help="WebP quality of its crops."
)
def pack_candidates(file: Path, out: Path, megabytes: float, quality: int) -> None:
    """Write a FILE of candidates as a small one: all mitoses and look-alikes, and as many others as fit."""
    from minugan_training.classification.candidates import MITOSIS, load_candidates
    from minugan_training.packs.candidates import pack_candidates

    found = load_candidates(file)
    kept = pack_candidates(found, out, round(megabytes * 1e6), quality)
    click.echo(
        f"{len(kept.kind)} of {len(found.kind)} candidates, {int((kept.kind == MITOSIS).sum())} mitoses among them"
    )
    click.echo(f"Written: {out}, {out.stat().st_size / 1e6:.2f} MB")


@click.group()
def weights() -> None:
    """Split weights into files of at most 16 MB, join them again, or take the mean of several."""


@weights.command("split")
@click.argument("file", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the parts.")
@click.option("--half", is_flag=True, help="Keep numbers in 16 bits: half the size.")
def weights_split(file: Path, out: Path, half: bool) -> None:
    """Split a FILE of weights."""
    from minugan_training.packs.parts import split_weights

    for path in split_weights(file, out, half):
        click.echo(f"{path}: {path.stat().st_size} bytes")


@weights.command("join")
@click.argument("folder", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The file of weights.")
def weights_join(folder: Path, out: Path) -> None:
    """Join the parts in a FOLDER."""
    from minugan_training.packs.parts import join_weights

    join_weights(folder, out)
    click.echo(f"Written: {out}")


@weights.command("mean")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option(
    "--logits-times",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiply a classifier's logits, which are nearer to 0 than those that the mean is of.",
)
@click.option("-o", "--out", type=PATH, required=True, help="The file of weights.")
def weights_mean(files: tuple[Path, ...], logits_times: float, out: Path) -> None:
    """Write the mean of the FILES' weights: of networks that began with the same ones, it is often better than each."""
    from minugan_training.mean_weights import mean_weights

    mean_weights(files, out, logits_times)
    click.echo(f"Written: {out}")
