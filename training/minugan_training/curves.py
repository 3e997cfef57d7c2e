"""Curves of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

from minugan_training.journal import read_metrics
from wsi_minugan.outputs.atomic import atomic_path


def draw_curves(folder: Path) -> None:
    """Write ``curves.png`` from a run's metrics.jsonl, if there are any."""
    from matplotlib.figure import Figure

    rows = read_metrics(folder)
    if not rows:
        return
    names = [k for k in rows[-1] if k not in {"step", "seconds", "rate"}]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r], label=name)
    axes.set(xlabel="step", ylabel="loss (running mean)")
    if names:
        axes.legend(frameon=False)
    with atomic_path(folder / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png")
