"""A picture of readers' agreement: differences of counts over their means (Bland and Altman), as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from wsi_minugan.outputs.atomic import write_text

_WIDTH, _HEIGHT, _MARGIN = 380, 300, 52
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#555555"
"""Colours that also those tell apart who do not see red and green."""


@dataclass(frozen=True)
class Panel:
    """One panel of the chart: two readers' counts.

    Attributes
    ----------
    title : str
        Who the readers are, and how far they agree.
    counts : sequence of (int, int)
        Mitoses of each case, by the first and by the second reader.
    lines : sequence of (str, float)
        Horizontal lines: name, and difference in mitoses, of the bias and the limits of agreement.
    """

    title: str
    counts: Sequence[tuple[int, int]]
    lines: Sequence[tuple[str, float]] = ()


def write_chart(path: Path, panels: Sequence[Panel]) -> None:
    """Write plots of difference against mean, three in a row (Bland and Altman 1986).

    Parameters
    ----------
    path : Path
        SVG to write.
    panels : sequence of Panel
        Bland-Altman plots: the differences of two counts over their means.

    Raises
    ------
    OutputError
        If the chart cannot be written.
    """
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    body = "".join(
        f'<g transform="translate({k % columns * _WIDTH},{k // columns * _HEIGHT})">{_panel(p)}</g>'
        for k, p in enumerate(panels)
    )
    width, height = columns * _WIDTH, max(1, rows) * _HEIGHT
    write_text(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{height}" fill="white"/>{body}</svg>\n',
    )


def _panel(panel: Panel) -> str:
    means = [(a + b) / 2 for a, b in panel.counts]
    differences = [a - b for a, b in panel.counts]
    most = max([1.0, *means]) * 1.05
    reach = max([1.0, *map(abs, differences), *(abs(v) for _, v in panel.lines)]) * 1.15
    right, bottom = _WIDTH - 70, _HEIGHT - _MARGIN

    def x(value: float) -> float:
        return _MARGIN + value / most * (right - _MARGIN)

    def y(value: float) -> float:
        return 34 + (reach - value) / (2 * reach) * (bottom - 34)

    parts = [
        f'<text x="{_WIDTH / 2}" y="18" text-anchor="middle">{escape(panel.title)}</text>',
        f'<path d="M{_MARGIN},34V{bottom}H{right}" fill="none" stroke="black"/>',
        f'<path d="M{_MARGIN},{y(0):.1f}H{right}" stroke="{_GREY}" stroke-dasharray="1 3"/>',
        _text(_MARGIN - 6, y(0) + 4, "0", "end"),
        _text(_MARGIN - 6, y(reach / 1.15) + 4, f"{reach / 1.15:.3g}", "end"),
        _text(_MARGIN - 6, y(-reach / 1.15) + 4, f"{-reach / 1.15:.3g}", "end"),
        _text(_MARGIN, bottom + 16, "0", "middle"),
        _text(right, bottom + 16, f"{most:.3g}", "middle"),
        _text((_MARGIN + right) / 2, bottom + 34, "mean of both counts", "middle"),
        f'<text transform="translate(14,{(34 + bottom) / 2}) rotate(-90)" text-anchor="middle">difference</text>',
    ]
    for name, value in panel.lines:
        parts.append(
            f'<path d="M{_MARGIN},{y(value):.1f}H{right}" stroke="{_ORANGE}" stroke-dasharray="6 3"/>'
        )
        parts.append(_text(right + 4, y(value) + 4, f"{name} {value:.1f}", "start"))
    parts += [
        f'<circle cx="{x(m):.1f}" cy="{y(d):.1f}" r="4" fill="{_BLUE}" fill-opacity="0.6"/>'
        for m, d in zip(means, differences, strict=True)
    ]
    return "".join(parts)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_GREY}">{escape(words)}</text>'
