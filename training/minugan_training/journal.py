"""A run's metrics.jsonl: a row for every logged step, written as training goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_minugan.outputs.lines import cut_broken_line

JOURNAL = "metrics.jsonl"


def add_row(folder: Path, row: Mapping[str, float]) -> None:
    """Write a row."""
    with (folder / JOURNAL).open("a", encoding="utf-8") as f:
        f.write(json.dumps(dict(row)) + "\n")


def mend(folder: Path) -> None:
    """Cut off a last line that a kill broke, so that the next row is not glued to it; training logs that step again."""
    path = folder / JOURNAL
    if path.is_file():
        with path.open("r+b") as f:
            cut_broken_line(f)


def read_metrics(folder: Path) -> Sequence[dict[str, float]]:
    """Return the rows of metrics.jsonl; of a step logged twice (a resumed run), the last. Broken lines are left out."""
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
