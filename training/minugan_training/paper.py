"""The paper's tables and figures, from cross-validations that were run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from minugan_training.augment import cut_patch
from minugan_training.crossval import CrossValidation
from minugan_training.metrics import Detections, bootstrap_interval, pooled
from minugan_training.patchscore import PatchScore, classes_of
from minugan_training.sampling import Pool
from minugan_training.settings import Augmentation
from minugan_training.state import build_network
from minugan_training.truth import MITOSES, NUCLEI
from wsi_minugan.errors import DataError
from wsi_minugan.outputs.atomic import atomic_path
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS
from wsi_minugan.segmentation.objects import label_objects

if TYPE_CHECKING:
    from torch import nn

BASELINES = ("unet", "unet-focal")
_FALSE_POSITIVE, _FALSE_NEGATIVE = (255, 255, 0), (255, 140, 0)


def load_results(folder: Path) -> dict[str, CrossValidation]:
    """Return the cross-validations below a folder, by the name of their experiment.

    Raises
    ------
    DataError
        If there are none, or one cannot be read.
    """
    try:
        found = [
            CrossValidation.model_validate_json(p.read_bytes())
            for p in sorted(folder.glob("*/crossval.json"))
        ]
    except (OSError, ValueError) as e:
        raise DataError(f"The results in {folder} cannot be read: {e}.") from e
    if not found:
        raise DataError(f"{folder} holds no results. Run: minugan-train crossval EXPERIMENT... -o {folder}")
    return {c.experiment: c for c in found}


def summary_rows(results: Mapping[str, CrossValidation]) -> list[dict[str, Any]]:
    """Return a row for each experiment: mean, deviation and coefficient of variation of Dice, F1 with its interval by patient."""
    rows = []
    for name, c in results.items():
        values = _dices(c.patches)
        counts = _by_patient(c.patches)
        f1 = pooled(list(counts.values())).f1
        low, high = bootstrap_interval(counts, lambda d: d.f1) if len(counts) > 1 else (f1, f1)
        mean, deviation = float(values.mean()), float(values.std())
        losses = c.settings.losses
        rows.append(
            {
                "experiment": name,
                "discriminators": losses.discriminators if losses.adversarial else 0,
                "gamma": losses.gamma if losses.adversarial else None,
                "steps": c.settings.steps,
                "seed": c.settings.seed,
                "patches": len(c.patches),
                "dice": round(mean, 3),
                "deviation": round(deviation, 3),
                "cov": round(deviation / mean, 3) if mean else None,
                "f1": round(f1, 3),
                "f1_low": round(low, 3),
                "f1_high": round(high, 3),
            }
        )
    return rows


def table_3(c: CrossValidation) -> list[dict[str, Any]]:
    """Return F1 by data set and by scanner, pooled (paper, Table 3)."""
    rows = []
    keys: tuple[tuple[str, Callable[[PatchScore], str]], ...] = (
        ("data set", lambda p: p.dataset),
        ("scanner", lambda p: p.scanner),
    )
    for kind, key in keys:
        for name in sorted({key(p) for p in c.patches}):
            part = [p for p in c.patches if key(p) == name]
            rows.append(
                {
                    "by": kind, "name": name, "patches": len(part),
                    "f1": round(pooled(list(_by_patient(part).values())).f1, 3),
                }
            )  # fmt: skip
    return rows


def _dices(patches: Sequence[PatchScore]) -> NDArray[np.float64]:
    """Return the mean Dice of each patch over the classes that are labelled there."""
    both = ([d for d in (p.dice_mitoses, p.dice_nuclei) if d is not None] for p in patches)
    return np.array([float(np.mean(d)) for d in both if d])


def _by_patient(patches: Sequence[PatchScore]) -> dict[str, Detections]:
    counts: dict[str, Detections] = {}
    for p in patches:
        counts[p.patient] = counts.get(p.patient, Detections(0, 0, 0)) + Detections(p.tp, p.fp, p.fn)
    return counts


def draw_figures(results: Mapping[str, CrossValidation], out: Path) -> list[Path]:
    """Draw Figures 3, 4, 5, 7 and 8 for the results there are, and return the files."""
    table_2 = {k: v for k, v in results.items() if k not in BASELINES}
    drawn = []
    if table_2:
        drawn += [_distributions(table_2, out / "figure-3.png"), _means(table_2, out / "figure-4.png")]
        best = max(table_2, key=lambda k: _dices(table_2[k].patches).mean())
        drawn.append(_by_dataset(table_2[best], out / "figure-5.png"))
        compared = {best: table_2[best]} | {k: results[k] for k in BASELINES if k in results}
        if len(compared) > 1:
            drawn += [_distributions(compared, out / "figure-7.png"), _means(compared, out / "figure-8.png")]
    return drawn


def _figure(width: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _distributions(results: Mapping[str, CrossValidation], path: Path) -> Path:
    figure = _figure(2 + 0.8 * len(results))
    axes = figure.subplots()
    axes.boxplot([_dices(c.patches) for c in results.values()], tick_labels=list(results), showmeans=True)
    axes.set(ylabel="Dice", ylim=(0, 1))
    axes.tick_params(axis="x", rotation=40)
    return _save(figure, path)


def _means(results: Mapping[str, CrossValidation], path: Path) -> Path:
    figure = _figure(2 + 0.8 * len(results))
    left, right = figure.subplots(1, 2)
    rows = summary_rows(results)
    for axes, column, label in ((left, "dice", "mean Dice"), (right, "cov", "coefficient of variation")):
        axes.bar([r["experiment"] for r in rows], [r[column] or 0 for r in rows], color="#4a6fa5")
        axes.set(ylabel=label)
        axes.tick_params(axis="x", rotation=60)
    return _save(figure, path)


def _by_dataset(c: CrossValidation, path: Path) -> Path:
    figure = _figure(5)
    names = sorted({p.dataset for p in c.patches})
    axes = figure.subplots()
    values = [_dices([p for p in c.patches if p.dataset == n]) for n in names]
    axes.boxplot(values, tick_labels=names, showmeans=True)
    axes.set(ylabel="Dice", ylim=(0, 1), title=c.experiment)
    return _save(figure, path)


def draw_all(results: Mapping[str, CrossValidation], pool: Pool, out: Path, pictures: int) -> list[Path]:
    """Draw all figures there are results for, those with pictures of patches too, and return the files."""
    drawn = draw_figures(results, out)
    for name, c in results.items():
        networks = {}
        for fold in range(c.folds):
            networks[fold] = build_network(c.settings)
            networks[fold].load_state_dict(load_file(out / name / f"fold-{fold}" / "weights.safetensors"))
            networks[fold].eval()
        drawn.append(draw_pictures(c, pool, networks, pictures, out / name / "figures-6-9-10.png"))
    return drawn


def draw_pictures(
    c: CrossValidation, pool: Pool, networks: Mapping[int, nn.Module], count: int, path: Path
) -> Path:
    """Draw patches as Figures 6, 9 and 10 do: image, truth, prediction; false positives boxed yellow, false negatives orange.

    The pictures show the data: they are for the reader's own disk, not for publication.
    """
    index = {(e.dataset, e.image): k for k, e in enumerate(pool.entries)}
    figure = _figure(7)
    figure.set_size_inches(7, 2.4 * count)
    rows = figure.subplots(count, 3, squeeze=False)
    chosen = np.linspace(0, len(c.patches) - 1, count).astype(int)
    for axes, patch in zip(rows, (c.patches[k] for k in chosen), strict=True):
        sample = pool.sample(index[patch.dataset, patch.image])
        image, labels = cut_patch(
            sample, (patch.x_px, patch.y_px), c.settings.patch_px, Augmentation(rotate=False), np.random.default_rng(0)
        )  # fmt: skip
        truth = np.where(labels[..., MITOSES] == 1, MITOSIS, np.where(labels[..., NUCLEI] == 1, NUCLEUS, 0))
        found = classes_of(networks[patch.fold], image)
        for ax, picture, title in zip(
            axes, (image, _painted(truth), _painted(found)), ("image", "truth", c.experiment), strict=True
        ):
            ax.imshow(picture)
            ax.set_title(title, fontsize=8)
            ax.axis("off")
        _box(axes[2], found == MITOSIS, truth == MITOSIS, _FALSE_POSITIVE)
        _box(axes[2], truth == MITOSIS, found == MITOSIS, _FALSE_NEGATIVE)
    return _save(figure, path)


def _painted(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return classes in the paper's colours: nuclei red, mitoses green."""
    colours = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)
    return np.asarray(colours[classes], np.uint8)


def _box(
    axes: Any, objects: NDArray[np.bool_], others: NDArray[np.bool_], colour: tuple[int, int, int]
) -> None:
    """Box the objects that share no pixel with the other mask."""
    from matplotlib.patches import Rectangle

    labels = label_objects(objects)
    for k in range(1, int(labels.max()) + 1):
        if not (others & (labels == k)).any():
            ys, xs = np.nonzero(labels == k)
            size = (float(np.ptp(xs)) + 7, float(np.ptp(ys)) + 7)
            edge = tuple(v / 255 for v in colour)
            axes.add_patch(
                Rectangle((xs.min() - 3, ys.min() - 3), *size, fill=False, edgecolor=edge, linewidth=1.5)
            )
