"""A run's metrics.jsonl: a row for every logged step, written as training goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from minugan_training.figures import new_figure, save_figure
from wsi_minugan.outputs.lines import cut_broken_line

JOURNAL = "metrics.jsonl"


def add_row(folder: Path, row: Mapping[str, float]) -> None:
    """Write a row.

    Parameters
    ----------
    folder : Path
        The run's folder.
    row : mapping of str to float
        Figures of one step.
    """
    with (folder / JOURNAL).open("a", encoding="utf-8") as f:
        f.write(json.dumps(dict(row)) + "\n")


def mend(folder: Path) -> None:
    """Cut off a last line that a kill broke, so that the next row is not glued to it; training logs that step again.

    Parameters
    ----------
    folder : Path
        The run's folder.
    """
    path = folder / JOURNAL
    if path.is_file():
        with path.open("r+b") as f:
            cut_broken_line(f)


def read_metrics(folder: Path) -> Sequence[dict[str, float]]:
    """Return the rows of metrics.jsonl; of a step logged twice (a resumed run), the last. Broken lines are left out.

    Parameters
    ----------
    folder : Path
        The run's folder.

    Returns
    -------
    sequence of dict of str to float
        In the order of the steps.
    """
    rows: dict[int, dict[str, float]] = {}
    path = folder / JOURNAL
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                rows[int(row["step"])] = row
            except (ValueError, TypeError, KeyError):
                continue
    return [rows[k] for k in sorted(rows)]


def draw_curves(folder: Path) -> None:
    """Write ``curves.png`` from a run's metrics.jsonl, if there are any.

    Parameters
    ----------
    folder : Path
        The run's folder.
    """
    rows = read_metrics(folder)
    if not rows:
        return
    names = [k for k in rows[-1] if k not in {"step", "seconds", "rate"}]
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    for name in names:
        axes.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name)
    axes.set(xlabel="step", ylabel="loss (running mean)")
    if names:
        axes.legend(frameon=False)
    save_figure(figure, folder / "curves.png")
