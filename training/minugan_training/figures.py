"""Figures as every part of training draws them: in no window, and written whole as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_minugan.outputs.atomic import atomic_path


def new_figure(width: float, height: float = 4.0) -> Any:
    """Return an empty figure that belongs to no window.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        Empty.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG and return its path.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : Path
        PNG to write.

    Returns
    -------
    Path
        The same.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path
