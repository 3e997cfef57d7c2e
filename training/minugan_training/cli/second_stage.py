"""Commands of the second stage: candidates, their classifier, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import click

from minugan_training.cli.options import FIELDS_OF_SPLITS, INDEX, PATH, RADIUS_UM, ROOT

if TYPE_CHECKING:
    from minugan_training.data.stain import Method
    from minugan_training.evaluation.operating_point import OperatingPoints, PointFigures


@click.command()
@click.option("--model", default="default", show_default=True, help="Bundle whose first stage finds them.")
@INDEX
@ROOT
@click.option(
    "--split", "splits", multiple=True, default=("train", "val"), show_default=True, help="Of the index."
)
@click.option(
    "--least-score",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="What it proposes from here on.",
)
@click.option(
    "--dark-per-mm2",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="So many of the darkest other nuclei besides.",
)
@click.option("-o", "--out", type=PATH, required=True, help="Folder; gets a file for each split.")
def candidates(
    model: str,
    index: Path,
    root: Path,
    splits: tuple[str, ...],
    least_score: float,
    dark_per_mm2: float,
    out: Path,
) -> None:
    """Cut out what the second stage learns from: mitoses, look-alikes, what the first stage proposes, dark nuclei."""
    import torch

    from minugan_training.classification.candidates import find_candidates, save_candidates
    from minugan_training.data.index import read_index
    from minugan_training.threads import settle_threads
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.minugan.networks.loading import load_network

    settle_threads("cpu")
    network = load_network(load_bundle(find_bundle(model))).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    entries = read_index(index)
    for split in splits:
        part = [e for e in entries if e.split == split]
        found = find_candidates(root, part, network, least_score, dark_per_mm2)
        save_candidates(out / f"{split or 'none'}.npz", found)
        click.echo(
            f"{split}: {len(found.target)} candidates, {int((found.kind == 0).sum())} mitoses among them"
        )


@click.command()
@click.argument("experiment", type=PATH)
@click.option("--candidates", "folder", type=PATH, required=True, help="Folder that `candidates` wrote.")
@click.option("-o", "--out", type=PATH, required=True, help="Folder of the run. A run that is there resumes.")
@click.option(
    "--split",
    "splits",
    multiple=True,
    default=("train",),
    show_default=True,
    help="Learn from these splits. With val, too, no figure of the result is honest: for a model that ships once its recipe is fixed.",
)
@click.option(
    "--leave-out",
    "scanners",
    multiple=True,
    help="Learn nothing from this scanner, to see what that costs on it.",
)
@click.option(
    "--without-part",
    metavar="K/N",
    help="Leave out the Kth of N parts of the patients, and judge their candidates, for a training with --judged.",
)
@click.option(
    "--judged",
    type=PATH,
    multiple=True,
    help="Run with --without-part whose judgements become part of the labels; name those of all parts.",
)
@click.option(
    "--start",
    type=PATH,
    help="Begin with the weights of an earlier run, or with EfficientNet-Lite0's published ones (.pth); random ones otherwise.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True)
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="End after so many minutes, with a checkpoint."
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that make batches."
)
def classify(
    experiment: Path,
    folder: Path,
    out: Path,
    splits: tuple[str, ...],
    scanners: tuple[str, ...],
    without_part: str | None,
    judged: tuple[Path, ...],
    start: Path | None,
    device: str,
    minutes: float | None,
    workers: int,
) -> None:
    """Train the second stage by an EXPERIMENT file, from its last checkpoint if there is one."""
    from minugan_training.classification.candidates import joined, load_candidates, without_scanners
    from minugan_training.classification.cross_fitting import Fold, judge_held_out, prepare_cross_fitting
    from minugan_training.classification.pretrained import first_weights
    from minugan_training.classification.train import ClassifierExperiment, train_classifier
    from minugan_training.threads import settle_threads
    from wsi_minugan.config import read_yaml

    settle_threads(device)
    settings = read_yaml(experiment, ClassifierExperiment, "experiment")
    found = without_scanners(joined([load_candidates(folder / f"{split}.npz") for split in splits]), scanners)
    val = None if "val" in splits else load_candidates(folder / "val.npz")
    first = None if start is None else first_weights(start)
    part = None if without_part is None else Fold.parse(without_part)
    train, held_out = prepare_cross_fitting(settings, found, part, judged)
    weights = train_classifier(
        settings, train, val, out, first, device=device, minutes=minutes, workers=workers
    )
    judge_held_out(settings, weights, found, held_out, out, device)
    click.echo(f"Done. Weights: {out / 'weights.safetensors'}")


@click.command()
@click.option("--model", default="default", show_default=True, help="Bundle whose scores are calibrated.")
@INDEX
@ROOT
@FIELDS_OF_SPLITS
@RADIUS_UM
@click.option(
    "--stain",
    type=click.Choice(["none", "mean", "macenko"]),
    default="none",
    show_default=True,
    help="Bring each patient on each scanner to the median stain of the split train: mean and spread of the stains, or as Macenko does.",
)
@click.option("-o", "--out", type=PATH, help="Write calibration and operating points as JSON, for `export`.")
def calibrate(
    model: str,
    index: Path,
    root: Path,
    splits: tuple[str, ...],
    radius_um: float,
    stain: Literal["none", "mean", "macenko"],
    out: Path | None,
) -> None:
    """Calibrate a model's scores on whole fields and set its operating points, with one voice for each patient."""
    from minugan_training.data.index import read_index
    from minugan_training.data.stain import slide_maps
    from minugan_training.evaluation.detect import full_fields
    from minugan_training.evaluation.operating_point import (
        figures_on_card,
        mean_f1,
        measured_groups,
        operating_points,
    )
    from wsi_minugan.minugan.bundle import find_bundle, load_bundle
    from wsi_minugan.outputs.atomic import write_text

    rows = read_index(index)
    entries = full_fields([e for e in rows if e.split in splits])
    bundle = load_bundle(find_bundle(model))
    training = [e for e in rows if e.split == "train" and e.mitoses != "unknown"]
    method: Method = "macenko" if stain == "macenko" else "mean and spread"
    maps = {} if stain == "none" else slide_maps(root, entries, training, method, bundle.card.stain)
    groups = measured_groups(bundle, root, entries, radius_um, maps)
    found = operating_points(groups, radius_um)
    _print(found)
    on_card = figures_on_card(groups, bundle.card)
    for f in on_card:
        click.echo(
            f"{f.patient} {f.scanner}: F1 {f.f1:.3f}, {f.false_positives_per_mm2:.2f} false positives a mm2 at the card's point"
        )
    click.echo(f"Mean F1 over patients at the card's calibration and point: {mean_f1(on_card):.3f}")
    if out is not None:
        write_text(out, found.model_dump_json(indent=2) + "\n", parents=True)


def _print(found: OperatingPoints) -> None:
    from rich.console import Console
    from rich.table import Table

    for name, rows in found.patients.items():
        table = Table(
            "patient", "scanner", "mitoses", "F1", "recall", "FP per mm2",
            *(f"recall at {k}" for k in rows[0].froc), "threshold, F1 if left out",
            title=f"{name}: score {found.points[name]:g}",
        )  # fmt: skip
        for r in rows:
            recall = f"{r.true_positives / r.truths:.3f}" if r.truths else ""
            table.add_row(
                r.patient, r.scanner, str(r.truths), f"{r.f1:.3f}" if r.truths else "", recall,
                f"{r.false_positives_per_mm2:.2f}", *(f"{v:.2f}" if r.truths else "" for v in r.froc.values()),
                f"{r.left_out_threshold:g}, {r.left_out_f1:.3f}",
            )  # fmt: skip
        Console(width=130).print(table)
    click.echo(
        f"Calibration: score = 1 / (1 + exp(-({found.weight:.4f} a + {found.first_stage_weight:.4f} b + {found.bias:.4f})))"
        ", a the classifiers' logit, b the generator's"
    )
    click.echo(
        f"Mean F1 over patients: {found.mean_f1:.3f}; each left out in turn: {found.left_out_mean_f1:.3f}"
    )
    rates = _false_positives_by_patient(found.patients["balanced"])
    click.echo(
        f"False positives a mm2: worst patient {max(rates):.1f}, median of {len(rates)} patients {median(rates):.1f}"
    )
    click.echo(f"Expected calibration error: {found.expected_calibration_error:.3f}")


def _false_positives_by_patient(rows: Sequence[PointFigures]) -> list[float]:
    """Return each patient's false positives a mm2; the scanners of a patient count together."""
    from minugan_training.evaluation.intervals import by_patient

    return [p.false_positives / p.area_mm2 for p in by_patient(rows)]


COMMANDS = (candidates, classify, calibrate)
