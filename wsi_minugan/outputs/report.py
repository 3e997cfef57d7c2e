"""report.html: the whole batch in one offline file, what needs a look first."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.outputs.models import Manifest, RunFile, SlideState

PICTURES_BYTES, MANY_BYTES = 9_000_000, 20_000_000
"""Most that all pictures take of a report of up to `_FEW` slides, and of more: it is sent by mail, and a browser must open it."""

_FEW = 50
_MOST_BYTES, _LEAST_BYTES = 500_000, 10_000
"""Most that one slide's pictures take, and what is too little to see anything: such slides have links instead."""

_SHARES = {"overview.png": (900, 0.35), "hotspot.jpg": (1000, 0.42), "gallery.jpg": (1300, 0.23)}
"""Longest side of a picture, px, and its share of a slide's bytes."""

_CAPTIONS = (
    ("overview.png", "The slide: mitoses white, their density from blue to yellow, the hot spot orange"),
    ("hotspot.jpg", "The hot spot enlarged, its mitoses outlined in yellow"),
    (
        "gallery.jpg",
        "Mitoses, those of the hot spot first: number, and peak score of 100, which the threshold decides on",
    ),
)
_COLUMNS = (
    ("Slide", "l"),
    ("Look", "l"),
    ("Hot spot per mm²", ""),
    ("Mitoses in mm²", ""),
    ("Interval", ""),
    ("Tissue in it", ""),
    ("Nottingham", ""),
    ("TUPAC16", ""),
    ("All mitoses", ""),
    ("per mm²", ""),
    ("Tissue mm²", ""),
    ("Nuclei", ""),
)
_MARKS = {"done": "✓", "failed": "✕", "running": "…", "pending": "…"}
_FILES = {
    "mitoses.geojson": "mitoses for QuPath",
    "count.json": "count",
    "nuclei.parquet": "nuclei",
    "masks.zarr": "masks",
    "overview.png": "overview",
    "hotspot.jpg": "hot spot",
    "gallery.jpg": "gallery",
    "manifest.json": "manifest",
}
_SHORT_WORDS = 12


@dataclass(frozen=True)
class Row:
    """A slide as the report shows it.

    Attributes
    ----------
    state : SlideState
        Its row of slides.csv.
    warnings : tuple of str
        Sentences of its manifest.
    interval, level, fields, probabilities, no_interval, method : str
        Of its count.json and manifest, in words; empty where not there.
    words : str
        How the count was made.
    files : tuple of (str, str)
        Files in its folder, and what they are.
    pictures : dict of str to str
        Data URLs, by file.
    """

    state: SlideState
    warnings: tuple[str, ...] = ()
    interval: str = ""
    level: str = ""
    fields: str = ""
    probabilities: str = ""
    no_interval: str = ""
    method: str = ""
    words: str = ""
    files: tuple[tuple[str, str], ...] = ()
    pictures: dict[str, str] = field(default_factory=dict)

    @property
    def short(self) -> list[str]:
        """The beginnings of the warnings, for a table.

        Returns
        -------
        list of str
            One for each warning.
        """
        cut = [w.split() for w in self.warnings]
        return [
            " ".join(w[:_SHORT_WORDS]).rstrip(".,:;") + ("…" if len(w) > _SHORT_WORDS else "") for w in cut
        ]


def write_report(path: Path, run: RunFile, slides: Sequence[SlideState]) -> None:
    """Write the report of a run as one page that needs no network.

    Parameters
    ----------
    path : Path
        ``OUT/report.html``. Counts, warnings and pictures are taken from ``OUT/SLIDE_ID/`` beside it.
    run : RunFile
        Content of ``run.json``: settings, model, times.
    slides : sequence of SlideState
        State and figures of each slide of the run.
    """
    rows = sorted((_row(path.parent, s) for s in slides), key=_look_first)
    done = sum(s.status == "done" for s in slides)
    rows = _with_pictures(path.parent, rows, done)
    script = resources.files("wsi_minugan.outputs").joinpath("templates/report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsi_minugan.outputs"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("report.html.j2").render(
        run=run,
        rows=rows,
        done=done,
        left_out=sum(r.state.status == "done" and not r.pictures for r in rows),
        methods=sorted({r.words for r in rows if r.words}),
        columns=_COLUMNS,
        captions=_CAPTIONS,
        marks=_MARKS,
        started=_local(run.started),
        ended=_local(run.ended),
        script=Markup(script),  # noqa: S704 - our own file, without data
        script_hash=f"sha256-{digest}",
        number=_number,
        percent=lambda share: "–" if share is None else f"{100 * share:.0f} %",
    )
    write_text(path, html)


def _row(out: Path, state: SlideState) -> Row:
    """Return what is told of a slide; that its results are gone since is a warning, and no reason to stop."""
    if state.status != "done":
        return Row(state)
    folder = out / state.slide_id
    try:
        sealed = read_manifest(folder)
    except OutputError as e:
        return Row(state, (str(e),))
    count = _count(folder)
    interval, fields = _mapping(count.get("interval")), _mapping(count.get("fields"))
    return Row(
        state,
        (*sealed.warnings, *_by_hand(sealed)),
        interval=f"{interval['low']}–{interval['high']}" if {"low", "high"} <= interval.keys() else "",
        level=f"{100 * float(interval.get('level', 0.95)):.0f} %",
        fields=str(fields.get("total", "")),
        probabilities=_probabilities(_mapping(interval.get("nottingham"))),
        no_interval=str(count.get("no_interval") or ""),
        method=_method(sealed),
        words=str(count.get("method", "")),
        files=tuple((name, text) for name, text in _FILES.items() if (folder / name).exists()),
    )


def _count(folder: Path) -> dict[str, Any]:
    try:
        return _mapping(json.loads((folder / "count.json").read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}  # a damaged file is told by its digest


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _probabilities(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{score}: {100 * share:.0f} %" for score, share in sorted(scores.items()))


def _by_hand(sealed: Manifest) -> tuple[str, ...]:
    """Return a warning where a person gave the resolution: areas and scores are as wrong as that is."""
    source = sealed.slide.mpp_source
    if source != "--mpp" and "CSV" not in source:
        return ()
    return (
        f"The resolution, {sealed.slide.mpp:g} um/px, was given by hand ({source}): check it, for all areas rest on it.",
    )


def _method(sealed: Manifest) -> str:
    slide, cut = sealed.slide, sealed.settings.get("mitosis_threshold")
    point = sealed.settings.get("operating_point", "balanced")
    return (
        f"Resolution {slide.mpp:.4g} µm/px ({slide.mpp_source}), analysed at {sealed.analysis_mpp:.4g}. "
        f"Model {sealed.model.get('name', '')} {sealed.model.get('version', '')}, "
        + (f"mitosis threshold {cut:g}, set by hand." if cut else f"operating point '{point}' of its card.")
    )


def _look_first(row: Row) -> tuple[object, ...]:
    """Return what slides are sorted by: failures, then the most warnings, then the densest hot spots; what waits comes last."""
    order = {"failed": 0, "done": 1, "running": 2, "pending": 3}[row.state.status]
    return order, -len(row.warnings), -(row.state.hotspot_mitoses_per_mm2 or 0.0), row.state.slide_id


def _with_pictures(out: Path, rows: Sequence[Row], done: int) -> list[Row]:
    """Return the rows with their pictures, each slide its share, until the file has as much as it should take."""
    total = PICTURES_BYTES if done <= _FEW else MANY_BYTES
    share = min(_MOST_BYTES, max(_LEAST_BYTES, total // max(1, done)))
    found, taken = [], 0
    for row in rows:
        pictures = (
            _pictures(out / row.state.slide_id, share)
            if row.state.status == "done" and taken + share <= total
            else {}
        )
        taken += sum(map(len, pictures.values()))
        found.append(replace(row, pictures=pictures))
    return found


def _pictures(folder: Path, share_bytes: int) -> dict[str, str]:
    found = {}
    for name, (longest_px, part) in _SHARES.items():
        picture = cv2.imread(str(folder / name)) if (folder / name).is_file() else None
        if picture is not None:
            # In base64 three bytes take four.
            data = _jpeg_within(np.asarray(picture, np.uint8), longest_px, int(0.74 * part * share_bytes))
            found[name] = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return found


def _jpeg_within(picture: NDArray[np.uint8], longest_px: int, most_bytes: int) -> bytes:
    """Return a picture as a JPEG of at most so many bytes: first of less quality, then smaller."""
    factor = min(1.0, longest_px / max(picture.shape[:2]))
    while True:
        small = (
            picture
            if factor == 1
            else cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        )
        for quality in (85, 75, 65):
            _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(data) <= most_bytes or max(small.shape[:2]) < 64:
                return bytes(data.tobytes())
        factor *= max(0.5, min(0.9, (most_bytes / len(data)) ** 0.5))


def _local(moment: str | None) -> str:
    """Return a moment in this machine's time, with its zone."""
    if moment is None:
        return ""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%-d %B %Y, %H:%M %Z")
    except ValueError:
        return moment


def _number(value: Any, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
