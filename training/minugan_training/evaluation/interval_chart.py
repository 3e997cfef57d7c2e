"""A chart of intervals beside what experts counted, patient by patient; it holds no pixels of slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minugan_training.evaluation.intervals import LeftOut
from minugan_training.figures import new_figure, save_figure

_INSIDE, _OUTSIDE, _FOUND = "#0072b2", "#d55e00", "#777777"


def draw_intervals(path: Path, found: Sequence[LeftOut]) -> None:
    """Draw each patient's interval as a bar, the experts' number as a point, and what the model found as a line.

    Parameters
    ----------
    path : Path
        PNG to write.
    found : sequence of LeftOut
        The patients, from the top downwards.
    """
    figure = new_figure(8, 1.2 + 0.32 * len(found))
    axes = figure.subplots()
    for row, f in enumerate(found):
        colour = _INSIDE if f.covered else _OUTSIDE
        axes.plot([f.low, f.high], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot([f.found], [row], "|", color=_FOUND, markersize=12)
        axes.plot([f.truths], [row], "o" if f.covered else "X", color=colour, markersize=7)
    axes.set_yticks(range(len(found)), [f"{f.patient} ({f.area_mm2:.1f} mm²)" for f in found])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(left=-0.5)
    ticks = [n for n in (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= max([1, *(f.high for f in found)])]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xlabel("mitoses: 95 % interval (bar), experts (point), model (line)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
