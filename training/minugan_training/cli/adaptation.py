"""`minugan-train adapt`: a model's second stage, fine-tuned from reviews."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from minugan_training.classification.adapt import Judged

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("reviews", type=_PATH, nargs=-1, required=True)
@click.option("--model", default="default", show_default=True, help="Bundle to adapt.")
@click.option(
    "--candidates",
    "folder",
    type=_PATH,
    required=True,
    help="Folder that `candidates` wrote: train.npz is mixed in, val.npz is the guard set.",
)
@click.option("--steps", type=click.IntRange(1), help="Another number of steps.  [default: 200]")
@click.option("--most-lost", type=click.FloatRange(0, 1), help="Guard's recall to lose.  [default: 0.01]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--out", type=_PATH, required=True, help="The new bundle's folder.")
def adapt(
    reviews: tuple[Path, ...],
    model: str,
    folder: Path,
    steps: int | None,
    most_lost: float | None,
    seed: int,
    out: Path,
) -> None:
    """Adapt a model to REVIEWS: folders OUT/SLIDE/reviews/NAME that `wsi-minugan review` wrote, or their index.csv.

    Its second stage learns from what was rejected, added and moved, for about two minutes. As much of the change is kept
    as leaves the guard set's recall. `wsi-minugan run --model` takes the new bundle.
    """
    from minugan_training.classification.adapt import Adaptation, reviewed_candidates, write_adapted
    from minugan_training.classification.adapt import adapt as adapted_to
    from minugan_training.classification.candidates import MITOSIS, load_candidates
    from minugan_training.threads import settle_threads
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    start, used = time.monotonic(), time.process_time()
    settle_threads("cpu")
    bundle = load_bundle(find_bundle(model))
    given = {"steps": steps, "most_lost": most_lost, "seed": seed}
    settings = Adaptation(**{k: v for k, v in given.items() if v is not None})
    found = reviewed_candidates(reviews, bundle)
    hits = int((found.kind == MITOSIS).sum())
    click.echo(f"{hits} mitoses and {len(found.kind) - hits} others in {len(reviews)} reviews.")
    mixed_in, guard = (load_candidates(folder / f"{name}.npz") for name in ("train", "val"))
    made = adapted_to(bundle, found, mixed_in, guard, settings)
    for name, (before, after) in (("Guard set", made.guard), ("Reviews", made.reviewed)):
        click.echo(f"{name}: {_told(before)} before, {_told(after)} after.")
    told = f"Adapted to reviews of {len(set(found.patient.tolist()))} slides: {hits} mitoses, {len(found.kind) - hits} others"
    written = write_adapted(bundle, made, told, out)
    click.echo(
        f"{made.strength:.0%} of the change was taken, in {time.monotonic() - start:.0f} s "
        f"({time.process_time() - used:.0f} s of processor time)."
    )
    click.echo(f"{written.path}: {written.card.name} {written.card.version}, digest {written.digest[:16]}…")


def _told(judged: Judged) -> str:
    return (
        f"{judged.found} of {judged.mitoses} mitoses kept, {judged.refused} of {judged.others} others refused"
    )
