"""One page to send: whole, small, without scripts, and with every text escaped."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wsi_minugan.outputs.objects import read_objects
from wsi_minugan.review.pixels import open_pixels
from wsi_minugan.review.result import open_result
from wsi_minugan.review.store import save_review
from wsi_minugan.viewer.export import export_page

FOLDER = "synthetic slide"


def test_the_page_holds_count_hot_spot_and_gallery(run_command: Any, finished: Path, tmp_path: Path) -> None:
    done = run_command("view", finished, "--export", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text("utf-8")
    count = json.loads((finished / FOLDER / "count.json").read_text())
    assert f"<td>{count['mitoses']}</td>" in text
    assert text.count("<figure>") == count["mitoses"]
    assert "<circle" in text
    assert (
        text.count("<polygon") >= 2 * 2 * count["mitoses"]
    )  # twice each, in the hot spot and in the gallery
    assert len(text) < 3_000_000


def test_nothing_in_the_page_is_loaded_or_run(run_command: Any, finished: Path, tmp_path: Path) -> None:
    run_command("view", finished, "--export", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<script" not in text
    assert set(re.findall(r'(?:src|href)="(\w+):', text)) == {"data"}
    assert "default-src 'none'" in text


def test_a_review_is_shown_with_its_decisions_and_its_words_are_escaped(
    out: Path, slide: Path, tmp_path: Path
) -> None:
    result = open_result(out / FOLDER)
    objects = read_objects(out / FOLDER / "mitoses.geojson")
    mitoses = [o for o in objects if o.counts]
    name = '<img src=x onerror="alert(1)">'
    saved = save_review(result, mitoses[1:], name, "review")
    reader = open_pixels(result.sealed, slide)
    export_page(tmp_path / "page.html", result, reader, saved)
    reader.close()
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert "1 rejected" in text
    assert text.count("<figure>") == len(mitoses) - 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--export", "page.txt"], "must end in .html"),
        (["--export", "page.html", "--reviewer", "nobody"], "no review by nobody"),
    ],
)
def test_what_cannot_be_exported_is_told(
    run_command: Any, finished: Path, options: list[str], words: str
) -> None:
    done = run_command("view", finished, *options)
    assert done.returncode == 2
    assert words in done.stderr
