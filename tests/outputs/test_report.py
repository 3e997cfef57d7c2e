"""report.html: what needs a look first, readable by all, small enough to be sent, whatever slides are called."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from wsi_minugan.outputs import report
from wsi_minugan.outputs.closeups import write_jpeg
from wsi_minugan.outputs.models import Manifest, RunFile, SlideFacts, SlideState
from wsi_minugan.outputs.overview import Findings, draw_overview

RUN = RunFile(
    settings={"mitosis_threshold": None},
    versions={},
    model={"name": "m", "version": "1", "weights_sha256": "0" * 64, "licence": "none"},
    machine={},
    started="2026-01-01T00:00:00+00:00",
    ended="2026-01-01T01:00:00+00:00",
    slides_done=0,
    slides_failed=0,
    slides_pending=0,
)
COUNT = {
    "method": "Mitoses are counted.",
    "interval": {"low": 4, "high": 11, "level": 0.95, "nottingham": {"1": 0.25, "2": 0.75}},
}


def manifest_checksum(folder: Path, warnings: tuple[str, ...] = ()) -> None:
    facts = SlideFacts(
        slide_id=folder.name, file_name=None, fingerprint="f", width_px=9, height_px=9, levels=1, mpp=0.25,
        mpp_source="--mpp" if folder.name == "a" else "TIFF resolution tags", vendor="", objective=None, bounds_x_px=0, bounds_y_px=0,
    )  # fmt: skip
    manifest = Manifest(
        slide=facts, model={"name": "m"}, settings={}, versions={}, analysis_mpp=0.25, analysis_width_px=9,
        analysis_height_px=9, tissue_mm2=1.0, patches=1, warnings=list(warnings), files={},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def tissue(height: int, width: int) -> np.ndarray:
    """Return what compresses like stained tissue: noise, somewhat smooth."""
    rng = np.random.default_rng(1)
    return cv2.GaussianBlur(rng.integers(60, 255, (height, width, 3)).astype(np.uint8), (0, 0), 1.2)


def finished(
    out: Path, name: str, warnings: tuple[str, ...] = (), pixels: tuple[int, int] = (300, 400), **row: Any
) -> SlideState:
    """Make the folder of a finished slide, and return its row."""
    folder = out / name
    folder.mkdir(exist_ok=True)
    picture = tissue(*pixels)
    draw_overview(folder / "overview.png", picture, 9000, Findings(np.zeros((0, 2)), None, 0.25))
    write_jpeg(folder / "hotspot.jpg", picture)
    write_jpeg(folder / "gallery.jpg", picture[:60])
    (folder / "count.json").write_text(json.dumps(COUNT))
    manifest_checksum(folder, warnings)
    return SlideState(slide_id=name, path=name, status="done", **row)


def written(out: Path, *slides: SlideState) -> str:
    report.write_report(out / "report.html", RUN, slides)
    return (out / "report.html").read_text()


def names_in_order(html: str) -> list[str]:
    body = html.rsplit("<tbody>", maxsplit=1)[-1].split("</tbody>", maxsplit=1)[0]
    return re.findall(r'<td class="l name">(?:<a[^>]*>)?([^<]+)<', body)


def test_what_needs_a_look_comes_first(tmp_path: Path) -> None:
    slides = [
        finished(tmp_path, "calm", hotspot_mitoses_per_mm2=1.0),
        SlideState(slide_id="waits", path="", status="pending"),
        finished(tmp_path, "dense", hotspot_mitoses_per_mm2=9.0),
        finished(tmp_path, "warned", ("Look at this.",), hotspot_mitoses_per_mm2=0.5),
        SlideState(slide_id="broke", path="", status="failed", error="It broke. Mend it."),
    ]
    html = written(tmp_path, *slides)
    assert names_in_order(html) == ["broke", "warned", "dense", "calm", "waits"]
    assert html.index("It broke. Mend it.") < html.index('id="slides"')
    assert "⚠ Look at this" in html.split('id="slides"')[1].split("</table>")[0]


def test_a_slide_is_shown_with_its_density_interval_probabilities_and_pictures(tmp_path: Path) -> None:
    html = written(
        tmp_path,
        finished(tmp_path, "a", hotspot_mitoses=8, hotspot_area_mm2=1.96, hotspot_mitoses_per_mm2=4.07),
    )
    assert '<td class="key">4.1</td>' in html
    assert "95 % interval 4–11" in html
    assert "1: 25 %, 2: 75 %" in html
    assert html.count("data:image/jpeg;base64,") == 3
    assert "The resolution, 0.25 um/px, was given by hand (--mpp)" in html
    assert "Mitoses are counted." in html
    assert "operating point &#39;balanced&#39; of its card" in html
    for name in ("mitoses.geojson", "nuclei.parquet", "masks.zarr"):
        assert f'href="a/{name}"' not in html  # not there, so not linked
    for name in ("count.json", "overview.png", "hotspot.jpg", "gallery.jpg", "manifest.json"):
        assert f'href="a/{name}"' in html


@pytest.mark.slow
def test_fifty_slides_make_less_than_ten_megabytes(tmp_path: Path) -> None:
    first = finished(tmp_path, "slide-00", pixels=(900, 900))
    slides = [first]
    for k in range(1, 50):
        (tmp_path / f"slide-{k:02d}").symlink_to(tmp_path / "slide-00", target_is_directory=True)
        slides.append(first.model_copy(update={"slide_id": f"slide-{k:02d}"}))
    html = written(tmp_path, *slides)
    assert html.count("data:image/jpeg;base64,") == 150
    assert 1_000_000 < len(html.encode()) < 10_000_000


def test_pictures_of_too_many_slides_are_left_out_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PICTURES_BYTES", 30_000)
    slides = [finished(tmp_path, n, pixels=(600, 600)) for n in ("a", "b", "c", "d d")]
    html = written(tmp_path, *slides)
    assert len(html) < 60_000
    assert re.search(r"\d of 4 slides have no pictures here", html)
    assert '<a href="d%20d/overview.png">' in html


def test_names_and_sentences_are_text_and_nothing_else(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    (tmp_path / evil).mkdir()
    slide = finished(tmp_path, evil, (evil,))
    failed = SlideState(slide_id=evil + "2", path="", status="failed", error="</script>" + evil)
    html = written(tmp_path, slide, failed)
    assert "<img src=x" not in html
    assert html.count("</script>") == 1


def test_only_the_reports_own_script_may_run(tmp_path: Path) -> None:
    html = written(tmp_path, finished(tmp_path, "a"))
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy[1]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


def test_slides_without_results_have_no_picture_and_no_link(tmp_path: Path) -> None:
    html = written(tmp_path, SlideState(slide_id="x", path="x", status="failed", error="why"))
    assert not re.search(r"overview\.png|#s1", html)


def test_a_finished_slide_whose_folder_is_gone_is_told(tmp_path: Path) -> None:
    html = written(tmp_path, SlideState(slide_id="gone", path="", status="done"))
    assert "holds no finished result" in html


def test_times_are_those_of_this_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Zurich")
    time.tzset()
    try:
        assert "1 January 2026, 01:00 CET" in written(
            tmp_path, SlideState(slide_id="x", path="", status="pending")
        )
    finally:
        monkeypatch.undo()
        time.tzset()
