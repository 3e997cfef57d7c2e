"""report.html opens, however many slides a batch has."""

import re
from pathlib import Path

import numpy as np
import pytest

from wsi_minugan.outputs import report
from wsi_minugan.outputs.models import RunFile, SlideState
from wsi_minugan.outputs.overview import Findings, draw_overview

RUN = RunFile(
    settings={},
    versions={},
    model={"name": "m", "version": "1", "weights_sha256": "0" * 64, "licence": "none"},
    machine={},
    started="2026-01-01T00:00:00+00:00",
    ended=None,
    slides_done=0,
    slides_failed=0,
    slides_pending=0,
)


def written(out: Path, names: list[str], warnings: dict[str, list[str]] | None = None, **row: object) -> str:
    """Write the report of finished slides, and return its text."""
    noise = np.random.default_rng(1).integers(0, 255, (600, 900, 3), np.uint8)
    for name in names:
        (out / name).mkdir(exist_ok=True)
        draw_overview(out / name / "overview.png", noise, 9000, Findings(np.zeros((0, 2)), None, 0.25))
    states = [SlideState(slide_id=n, path=n, status="done", **row) for n in names]
    report.write_report(out / "report.html", RUN, states, warnings or {})
    return (out / "report.html").read_text()


def test_pictures_stop_at_a_bound_and_the_others_are_linked_with_their_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(tmp_path, ["a", "b", "c d"], {"c d": ["Look at this."]})
    assert whole.count("data:image/jpeg") == 3
    assert "too large to open" not in whole
    monkeypatch.setattr(report, "PICTURES_BYTES", int(0.7 * len(whole)))
    bounded = written(tmp_path, ["a", "b", "c d"], {"c d": ["Look at this."]})
    assert bounded.count("data:image/jpeg") == 2
    assert "holds 2 of 3 pictures" in bounded
    assert (tmp_path / "c d" / "overview.png").is_file()
    assert '<a href="c%20d/overview.png">' in bounded
    assert "Look at this." in bounded
    assert len(bounded) < len(whole)


def test_pictures_of_many_slides_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = written(tmp_path, ["a", "b"])
    monkeypatch.setattr(report, "_FEW_SLIDES", 1)
    assert len(written(tmp_path, ["a", "b"])) < len(large) / 3


def test_slides_without_results_have_no_picture_and_no_link(tmp_path: Path) -> None:
    state = SlideState(slide_id="x", path="x", status="failed", error="why")
    report.write_report(tmp_path / "report.html", RUN, [state], {})
    assert not re.search(r"overview\.png|#s1", (tmp_path / "report.html").read_text())
