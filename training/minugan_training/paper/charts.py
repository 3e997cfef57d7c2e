"""The paper's charts: Figures 3, 4, 5, 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minugan_training.evaluation.patches import PatchScore
from minugan_training.figures import new_figure, save_figure
from minugan_training.paper.cross_validation import CrossValidation
from minugan_training.paper.held_out import HeldOut
from minugan_training.paper.tables import BASELINES, Results, dices, summary_rows

_CLASSES = ("mitoses", "nuclei")


def draw_charts(results: Results, out: Path) -> list[Path]:
    """Draw the charts that there are results for, and return the files.

    Parameters
    ----------
    results : Results
        What to draw.
    out : Path
        Folder of the pictures.

    Returns
    -------
    list of Path
        PNG files.
    """
    drawn = []
    table_2 = {k: c for k, c in results.crossval.items() if k not in BASELINES}
    if table_2:
        both = {"mean of the classes": {k: dices(c.patches) for k, c in table_2.items()}}
        drawn += [_boxes(both, out / "figure-3.png"), _means(table_2, out / "figure-4.png")]
    compared = {k: results.crossval[k] for k in (results.best, *BASELINES) if k in results.crossval}
    if len(compared) > 1:
        named = {k: c.patches for k, c in compared.items()}
        drawn += [
            _boxes(_by_class(named), out / "figure-7.png"),
            _means(compared, out / "figure-8.png"),
        ]
    for name, h in results.heldout.items():
        drawn.append(_boxes(_by_class(_by_dataset(h)), out / name / "figure-5.png"))
    return drawn


def _by_dataset(h: HeldOut) -> dict[str, list[PatchScore]]:
    return {n: [p for p in h.patches if p.dataset == n] for n in sorted({p.dataset for p in h.patches})}


def _by_class(groups: Mapping[str, Sequence[PatchScore]]) -> dict[str, dict[str, Any]]:
    """Return the Dice of each group's patches for each class that experts outlined in any of them."""
    found = {c: {k: dices(patches, (c,)) for k, patches in groups.items()} for c in _CLASSES}
    return {c: part for c, part in found.items() if any(len(v) for v in part.values())}


def _boxes(panels: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Draw distributions of Dice: a panel for each class, a box for each group."""
    width = sum(2 + 0.8 * len(groups) for groups in panels.values())
    figure = new_figure(max(4.0, width))
    for axes, (title, groups) in zip(
        figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels.items(), strict=False
    ):
        axes.boxplot(list(groups.values()), tick_labels=list(groups), showmeans=True)
        axes.set(ylabel="Dice", ylim=(0, 1), title=title)
        axes.tick_params(axis="x", rotation=40)
    return save_figure(figure, path)


def _means(results: Mapping[str, CrossValidation], path: Path) -> Path:
    figure = new_figure(2 + 0.8 * len(results))
    left, right = figure.subplots(1, 2)
    rows = summary_rows(results)
    for axes, column, label in ((left, "dice", "mean Dice"), (right, "cov", "coefficient of variation")):
        axes.bar([r["experiment"] for r in rows], [r[column] or 0 for r in rows], color="#4a6fa5")
        axes.set(ylabel=label)
        axes.tick_params(axis="x", rotation=60)
    return save_figure(figure, path)
