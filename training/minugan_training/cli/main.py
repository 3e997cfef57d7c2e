"""`minugan-train`: data, training, evaluation, export."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minugan_training.cli.adaptation import adapt
from minugan_training.cli.comparison import robustness, training_range
from minugan_training.cli.data import data
from minugan_training.cli.intervals import intervals
from minugan_training.cli.options import INDEX, PATH, ROOT
from minugan_training.cli.packs import pack, pack_candidates, weights
from minugan_training.cli.second_stage import COMMANDS
from minugan_training.cli.stains import stain
from wsi_minugan.console import run_app, steady_streams

if TYPE_CHECKING:
    from minugan_training.sampling.pool import Pool
    from minugan_training.settings import Experiment

_DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "auto"]),
    default="cpu",
    show_default=True,
    help="Where to train; auto takes a GPU if there is one.",
)

_RADIUS = click.option(
    "--radius-um",
    type=click.FloatRange(0, min_open=True),
    default=7.5,
    show_default=True,
    help="Greatest distance of a match; 7.5 is MIDOG's, 5 ICPR's.",
)
_JPEG = click.option(
    "--jpeg",
    type=click.IntRange(1, 100),
    help="Compress images at this quality first, colours halved, to see what it costs.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Train and evaluate MiNuGAN; the experiments of the paper are files in training/experiments."""


app.add_command(data)
app.add_command(intervals)
for command in (*COMMANDS, adapt, robustness, training_range, stain, pack, pack_candidates, weights):
    app.add_command(command)


@app.command()
@click.argument("experiment", type=PATH)
@click.option("--index", type=PATH, help="Index of the data.")
@click.option("--root", type=PATH, help="What the index's paths are below.")
@click.option("--pack", type=PATH, help="Instead of an index: what `minugan-train pack` wrote.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the run. A run that is there resumes.")
@_DEVICE
@click.option("--start-from", type=PATH, help="Weights to start from.")
@click.option(
    "--teacher", type=PATH, help="Weights of the network that an experiment with `distillation` learns from."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="End after so many minutes, with a checkpoint; the learning rate falls by the clock.",
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that make batches."
)
@click.option(
    "--leave-out", multiple=True, help="Draw nothing from this scanner, to see what that costs on it."
)
def fit(
    experiment: Path,
    index: Path | None,
    root: Path | None,
    pack: Path | None,
    out: Path,
    device: str,
    start_from: Path | None,
    teacher: Path | None,
    minutes: float | None,
    workers: int,
    leave_out: tuple[str, ...],
) -> None:
    """Train an EXPERIMENT file, from its last checkpoint if there is one."""
    from minugan_training.data.index import read_index
    from minugan_training.fitting.fit import fit as train
    from minugan_training.fitting.metrics_log import draw_curves
    from minugan_training.fitting.pseudo_labels import pool_for
    from minugan_training.packs.fit import PackedRun, fit_from_pack, with_weights
    from minugan_training.settings import load_experiment
    from minugan_training.threads import settle_threads

    settings = with_weights(load_experiment(experiment), start_from, teacher)
    settle_threads(device)
    try:
        if pack is not None and index is None and root is None:
            fit_from_pack(settings, pack, out, PackedRun(device, minutes, workers, leave_out), _progress)
        elif pack is None and index is not None and root is not None:
            pool = pool_for(settings, root, read_index(index)).without_scanners(leave_out)
            train(settings, pool, out, _progress, device=device, minutes=minutes, workers=workers)
        else:
            raise click.UsageError("Give either a pack with --pack, or an index with --index and --root.")
    finally:  # the curves of a run that failed tell why
        draw_curves(out)
    click.echo(f"Done. Weights: {out / 'weights.safetensors'}; curves: {out / 'curves.png'}")


def _progress(step: int, loss: float, left_s: float) -> None:
    click.echo(f"step {step}  loss {loss:.4f}  {int(left_s // 3600)}:{int(left_s % 3600 // 60):02d} left")


def _of_the_paper(command: Callable[..., None]) -> Callable[..., None]:
    """Add what the commands take that run the paper's experiments, at its scale or at a CPU's."""
    for add in (
        _DEVICE,
        click.option("--steps", type=int, help="Another number of steps, for a CPU."),
        click.option("--patch-px", type=int, help="Another patch size, for a CPU."),
        click.option("--ngf", type=int, help="Another width, for a CPU."),
        click.option("--dataset", "datasets", multiple=True, help="Instead of the experiment's data sets."),
        click.option(
            "-o",
            "--out",
            type=PATH,
            required=True,
            help="Gets a folder for each experiment. Runs that are there resume.",
        ),
        ROOT,
        INDEX,
        click.argument("experiments", type=PATH, nargs=-1, required=True),
    ):
        command = add(command)
    return command


def _experiments(
    paths: Sequence[Path], index: Path, root: Path, datasets: Sequence[str], smaller: Mapping[str, int | None]
) -> Iterator[tuple[Experiment, Pool]]:
    """Yield each experiment with its pool of samples."""
    from minugan_training.data.index import read_index
    from minugan_training.fitting.pseudo_labels import pool_for
    from minugan_training.settings import load_experiment, scaled

    entries = read_index(index)
    for path in paths:
        experiment = scaled(
            load_experiment(path), datasets, {k: v for k, v in smaller.items() if v is not None}
        )
        yield experiment, pool_for(experiment, root, entries)


@app.command()
@_of_the_paper
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--by", type=click.Choice(["patch", "patient"]), default="patch", show_default=True)
def crossval(
    experiments: tuple[Path, ...],
    index: Path,
    root: Path,
    out: Path,
    folds: int,
    by: Any,
    datasets: tuple[str, ...],
    device: str,
    **smaller: int | None,
) -> None:
    """Cross-validate EXPERIMENT files, as the paper's Table 2 does."""
    from minugan_training.fitting.faults import memory_errors
    from minugan_training.paper.cross_validation import crossvalidate
    from minugan_training.threads import settle_threads

    settle_threads(device)
    for experiment, pool in _experiments(experiments, index, root, datasets, smaller):
        click.echo(f"{experiment.name}: {folds} folds by {by}")
        with memory_errors():
            crossvalidate(experiment, pool, out / experiment.name, folds, by, _progress, device)


@app.command()
@_of_the_paper
@click.option("--test-dataset", "test_datasets", multiple=True, required=True, help="Data sets held out.")
@click.option("--test-split", "test_splits", multiple=True, default=("test",), show_default=True)
def heldout(
    experiments: tuple[Path, ...],
    index: Path,
    root: Path,
    out: Path,
    test_datasets: tuple[str, ...],
    test_splits: tuple[str, ...],
    datasets: tuple[str, ...],
    device: str,
    **smaller: int | None,
) -> None:
    """Train EXPERIMENT files on all their patches and score sets held out, as the paper's Table 3 and Figure 5 do."""
    from minugan_training.fitting.faults import memory_errors
    from minugan_training.paper.held_out import score_held_out
    from minugan_training.paper.tables import table_3
    from minugan_training.threads import settle_threads

    settle_threads(device)
    for experiment, pool in _experiments(experiments, index, root, datasets, smaller):
        click.echo(f"{experiment.name}: held out are {', '.join(test_datasets)}")
        with memory_errors():
            done = score_held_out(
                experiment, pool, out / experiment.name, test_datasets, test_splits, _progress, device
            )
        _print_table(f"Table 3: {experiment.name}", table_3(done.patches))


def _print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same columns, if there are any."""
    from rich.console import Console
    from rich.table import Table

    if rows:
        table = Table(*rows[0], title=title)
        for row in rows:
            table.add_row(*("" if v is None else str(v) for v in row.values()))
        Console(width=150).print(table)


@app.command()
@click.argument("results", type=PATH)
@click.option("--index", type=PATH, required=True)
@click.option("--root", type=PATH, required=True)
@click.option(
    "--pictures", type=click.IntRange(1), default=4, show_default=True, help="Patches in Figures 6, 9 and 10."
)
def reproduce(results: Path, index: Path, root: Path, pictures: int) -> None:
    """Print the paper's Tables 2 and 3, and draw its figures, from the folder that `crossval` and `heldout` filled."""
    from minugan_training.data.index import read_index
    from minugan_training.paper.charts import draw_charts
    from minugan_training.paper.pictures import draw_pictures
    from minugan_training.paper.tables import load_results, summary_rows, table_3
    from minugan_training.sampling.pool import Pool

    found = load_results(results)
    by_set = [{"experiment": k} | r for k, h in found.heldout.items() for r in table_3(h.patches)]
    _print_table("Table 2, Figures 4 and 8", summary_rows(found.crossval))
    _print_table("Table 3", by_set)
    pool = Pool(root, read_index(index))
    for path in draw_charts(found, results) + draw_pictures(found, pool, results, pictures):
        click.echo(f"Drawn: {path}")


@app.command()
@click.argument("experiment", type=PATH)
@click.argument("weights", type=PATH, nargs=-1, required=True)
@click.option("-o", "--out", type=PATH, required=True, help="The bundle's folder.")
@click.option(
    "--card", type=PATH, required=True, help="YAML with name, version, training_data, licence, thresholds."
)
@click.option("--scores", type=PATH, help="JSON that `evaluate -o` wrote.")
@click.option(
    "--classifier", "classifiers", type=PATH, multiple=True, help="Weights of the second stage; several are an ensemble."
)  # fmt: skip
@click.option("--calibration", type=PATH, help="JSON that `calibrate -o` wrote.")
@click.option("--stain", type=PATH, help="JSON that `stain -o` wrote.")
def export(
    experiment: Path,
    weights: tuple[Path, ...],
    out: Path,
    card: Path,
    scores: Path | None,
    classifiers: tuple[Path, ...],
    calibration: Path | None,
    stain: Path | None,
) -> None:
    """Write a bundle for `wsi-minugan run --model`; several WEIGHTS, of runs that went on from each other, are averaged."""
    from minugan_training.export import SecondStageFiles, export_bundle
    from minugan_training.settings import load_experiment

    stage = SecondStageFiles(classifiers, calibration)
    bundle = export_bundle(load_experiment(experiment), weights, card, scores, out, stage, stain)
    click.echo(f"{bundle.path}: {bundle.card.name} {bundle.card.version}, digest {bundle.digest[:16]}…")


@app.command()
@click.option("--model", default="default", show_default=True, help="Bundle whose thresholds are sought.")
@click.option("--index", type=PATH, required=True)
@click.option("--root", type=PATH, required=True)
@_RADIUS
@_JPEG
@click.option("--show", type=int, default=15, show_default=True, help="How many settings to print.")
@click.option(
    "--crop-recall",
    type=float,
    default=0.0,
    show_default=True,
    help="Leave out settings that recall less on crops.",
)
def tune(
    model: str, index: Path, root: Path, radius_um: float, jpeg: int | None, show: int, crop_recall: float
) -> None:
    """Print the thresholds that do best on the full fields of the split "val".

    Only those are printed that recall enough on its crops. Where nuclei are labelled, also the thresholds of their
    scores, by Dice on the split "train".
    """
    from rich.console import Console
    from rich.table import Table

    from minugan_training.data.index import read_index
    from minugan_training.evaluation.thresholds import recalling, tune_nuclei, tune_thresholds
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.minugan.predictor import Predictor

    table = Table("pixel cut", "peak", "area um2", "F1", "precision", "recall", "FP per mm2", "crop recall")
    bundle = load_bundle(find_bundle(model))
    predictor = Predictor(bundle, precision="fp32")  # the same on every machine
    entries = read_index(index)
    found = tune_thresholds(predictor, root, entries, radius_um, jpeg)
    for c in recalling(found, crop_recall)[:show]:
        d = c.found
        figures = (d.f1, d.precision, d.recall, d.fp_per_mm2, c.crop_recall or 0.0)
        table.add_row(f"{c.mitosis:g}", f"{c.peak:g}", f"{c.min_area_um2:g}", *(f"{v:.3f}" for v in figures))
    Console().print(table)
    for cut, value in tune_nuclei(
        predictor, root, entries, jpeg, bundle.card.thresholds.nucleus_min_area_um2
    ):
        click.echo(f"nucleus cut {cut:g}: Dice {value:.3f}")


# The name of this command in earlier versions.
app.add_command(
    click.Command("choose", callback=tune.callback, params=tune.params, help=tune.help, hidden=True)
)


@app.command()
@click.option("--model", default="default", show_default=True, help="Bundle to evaluate.")
@click.option("--data", "folders", type=PATH, multiple=True, help="Folder in a known layout; all its images.")
@click.option("--index", type=PATH, help="Index of data.")
@click.option("--root", type=PATH, help="What the index's paths are below.")
@click.option(
    "--split", "splits", multiple=True, default=("val", "test"), show_default=True, help="Of the index."
)
@_RADIUS
@_JPEG
@click.option("-o", "--out", type=PATH, help="Write the figures as JSON.")
def evaluate(
    model: str,
    folders: tuple[Path, ...],
    index: Path | None,
    root: Path | None,
    splits: tuple[str, ...],
    radius_um: float,
    jpeg: int | None,
    out: Path | None,
) -> None:
    """Print a model's figures: on folders of data, or on the sets of an index that choose and that report."""
    from rich.console import Console

    from minugan_training.data.index import read_index
    from minugan_training.evaluation.evaluate import Figures, evaluate_model, table_of
    from minugan_training.importing.layouts import import_folder
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.outputs.atomic import write_text

    bundle = load_bundle(find_bundle(model))
    if folders and (index is not None or root is not None):
        raise click.UsageError("Give either folders with --data, or an index with --index and --root.")
    if folders:
        parts = [
            evaluate_model(bundle, *import_folder(f), radius_um, ("train", "val", "test", ""), jpeg)
            for f in folders
        ]
    elif index is not None and root is not None:
        parts = [evaluate_model(bundle, root, read_index(index), radius_um, splits, jpeg)]
    else:
        raise click.UsageError("Give folders of data with --data, or an index with --index and --root.")
    figures = Figures.model_validate(parts[0].model_dump() | {"rows": [r for p in parts for r in p.rows]})
    Console(width=110).print(table_of(figures))
    if out is not None:
        write_text(out, figures.model_dump_json(indent=2) + "\n", parents=True)


def main() -> None:
    """Run the command line; a user's mistake ends in a sentence."""
    steady_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run_app(app, batches=("fit", "crossval", "heldout"))
