"""slides.csv: one row a slide."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import SlideState

_BYTE_ORDER_MARK = "\ufeff"


def write_slides(path: Path, slides: Sequence[SlideState]) -> None:
    """Write the batch's table, in UTF-8 with a byte order mark: Excel takes it for another encoding without.

    Parameters
    ----------
    path : Path
        ``slides.csv`` to write.
    slides : sequence of SlideState
        Slides of the run, one for each line.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    text = io.StringIO()
    text.write(_BYTE_ORDER_MARK)
    writer = csv.DictWriter(text, list(SlideState.model_fields), lineterminator="\n")
    writer.writeheader()
    for slide in slides:
        writer.writerow({k: _cell(v) for k, v in slide.model_dump(mode="json").items()})
    write_text(path, text.getvalue())


def _cell(value: object) -> object:
    # A spreadsheet would run a text that starts like a formula; slides' names come from outside.
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"}:
        return "'" + value
    return "" if value is None else value
