"""slides.csv: one row a slide."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import SlideState


def write_slides(path: Path, slides: Sequence[SlideState]) -> None:
    """Write the batch's table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(SlideState.model_fields), lineterminator="\n")
    writer.writeheader()
    for slide in slides:
        writer.writerow({k: _cell(v) for k, v in slide.model_dump().items()})
    write_text(path, text.getvalue())


def _cell(value: object) -> object:
    # A spreadsheet would run a text that starts like a formula; slides' names come from outside.
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"}:
        return "'" + value
    return "" if value is None else value
