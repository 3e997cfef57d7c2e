"""report.html: the whole batch in one offline file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2

from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.models import RunFile, SlideState

_PICTURE_PX, _QUALITY = 900, 82
_FEW_SLIDES, _SMALL_PX = 60, 320
"""Up to so many slides each has a large picture; of more, small ones are easier to look through too."""

PICTURES_BYTES = 20_000_000
"""Most that all pictures take in the file: a browser must open it. Later slides have a link instead."""


def write_report(
    path: Path, run: RunFile, slides: Sequence[SlideState], warnings: dict[str, list[str]]
) -> None:
    """Write the report.

    Parameters
    ----------
    path : Path
        OUT/report.html; pictures are taken from ``OUT/SLIDE_ID/overview.png``.
    run : RunFile
        The run.
    slides : sequence of SlideState
        Its slides.
    warnings : dict of str to list of str
        By slide_id, sentences from the manifests.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsi_minugan.outputs"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("report.html.j2").render(
        run=run,
        slides=slides,
        warnings=warnings,
        pictures=_pictures(path.parent, [s.slide_id for s in slides if s.status == "done"]),
        number=_number,
        percent=lambda share: "–" if share is None else f"{100 * share:.0f} %",
    )
    write_text(path, html)


def _pictures(out: Path, slide_ids: Sequence[str]) -> dict[str, str]:
    """Return the slides' pictures as data URLs, in order, until the file has as much as it should take."""
    longest_px = _PICTURE_PX if len(slide_ids) <= _FEW_SLIDES else _SMALL_PX
    found: dict[str, str] = {}
    taken = 0
    for slide_id in slide_ids:
        picture = _picture(out / slide_id / "overview.png", longest_px)
        if picture is not None:
            taken += len(picture)
            if taken > PICTURES_BYTES:
                break
            found[slide_id] = picture
    return found


def _picture(path: Path, longest_px: int) -> str | None:
    """Return a picture as a data URL, or None where there is none."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    if picture is None:
        return None
    factor = longest_px / max(picture.shape[:2])
    if factor < 1:
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _number(value: Any, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
