"""One run over slides as people really have them: each ends with the right count, or with a sentence; none with other numbers."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SENTENCES = {
    "jpeg_cut_tiles": "no end marker",
    "jpeg_holes": "does not decode",
    "sparse_level0": "holds no data",
    "label_first": "holds several pictures (page 0 of",
    "two_scenes": "holds several pictures (page 0 of",
    "aperio_halved": "contradicts itself on its resolution",
    "dicom_says_rgb": "contradicts itself on its colours",
    "dicom_raw_ycc": "contradicts itself on its colours",
}
"""What is refused, and with which words; all else has the count of the plain slide of its kind."""

LIKE = {
    "plain": "plain",
    "good_pyramid": "plain",
    "padded_levels": "plain",
    "half_level_missing": "plain",
    "halved_true": "halved_true",
    "on_glass": "plain",
    "tinted": "on_glass",
}

NEAR = {"on_glass": 1, "tinted": 1}
"""Slides of the same tissue whose pixels lie or look otherwise to the network, and by how many mitoses they may differ."""


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "slides.csv").open(encoding="utf-8-sig") as f:
        return {row["slide_id"]: row for row in csv.DictReader(f)}


def check(rows: dict[str, dict[str, str]]) -> None:
    for name, words in SENTENCES.items():
        if name in rows:
            assert rows[name]["status"] == "failed", name
            assert words in rows[name]["error"], rows[name]["error"]
    for name, like in LIKE.items():
        if name in rows:
            assert rows[name]["status"] == "done", rows[name]
            difference = abs(int(rows[name]["mitoses"]) - int(rows[like]["mitoses"]))
            assert difference <= NEAR.get(name, 0), (name, rows[name], rows[like])
            expected = float(rows[like]["tissue_mm2"])
            assert float(rows[name]["tissue_mm2"]) == pytest.approx(expected, rel=0.08), name


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_folder_of_odd_slides_gives_sixteen_right_counts_or_sentences(
    tmp_path: Path, shared: Path, run_command
) -> None:
    image = shared / "data" / "icpr12" / "images" / "A01_02.jpg"
    call = [sys.executable, str(shared / "tools" / "odd_slides.py"), str(image), str(tmp_path / "odd")]
    subprocess.run(call, check=True, capture_output=True)
    done = run_command("run", tmp_path / "odd", "-o", tmp_path / "out", "--no-nuclei", timeout=3500)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    rows = rows_of(tmp_path / "out")
    check(rows)
    assert int(rows["plain"]["mitoses"]) > 4
    assert rows.keys() >= SENTENCES.keys() | LIKE.keys()
    two = [row for row in rows.values() if "dicom_two" in row["path"]]
    assert len(two) == 2
    for row in two:
        assert row["status"] == "done"
        # Of one the tissue is turned over, and both were compressed.
        assert abs(int(row["mitoses"]) - int(rows["plain"]["mitoses"])) <= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_odd_slides_of_drawn_tissue_give_right_counts_or_sentences(tmp_path: Path, odd, run_command) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    image, levels = odd.image, odd.levels
    blank = levels[3].copy()
    blank[:, 25:] = 243
    streams = [odd.jpeg(t) for t in odd.tiles(image)]
    odd.pages(slides / "plain.tif", image)
    odd.pages(slides / "padded_levels.tif", image, *map(odd.padded, levels))
    odd.pages(slides / "half_level_missing.tif", image, levels[1], blank)
    odd.pages(slides / "tinted.tif", (image * np.array((1, 1, 0.9))).astype(np.uint8))
    odd.pages(slides / "on_glass.tif", image)
    odd.stored(slides / "jpeg_cut_tiles.tif", [s[: len(s) // 5] for s in streams])
    odd.stored(
        slides / "sparse_level0.tif", [b"" if k == 12 else s for k, s in enumerate(streams)], levels[1::2]
    )
    odd.pages(slides / "two_scenes.tif", np.ascontiguousarray(image[:700, :700]), image, subfiletype=0)
    options = ("run", slides, "-o", tmp_path / "out", "--no-nuclei")
    done = run_command(*options, timeout=1100)
    assert done.returncode == 1, done.stderr
    rows = rows_of(tmp_path / "out")
    check(rows)
    assert int(rows["plain"]["mitoses"]) > 2
    warnings = (tmp_path / "out" / "half_level_missing" / "manifest.json").read_text()
    assert "Level 2 of the slide does not show what level 0 shows" in warnings
