"""The viewer in a real Chromium: a whole review by keyboard, 100,000 nuclei, and nothing that its console complains of."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from wsi_minugan.outputs.manifest import digests
from wsi_minugan.outputs.nuclei import write_nuclei
from wsi_minugan.pipeline.own_files import own_files
from wsi_minugan.slides.files import fingerprint
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
NUCLEI = 100_000


def test_a_review_by_keyboard_alone(
    out: Path, serve: Callable[..., str], browse: Callable[..., dict[str, Any]], run_command: Any
) -> None:
    folder = out / "synthetic slide"
    before = digests(folder, own_files(folder))
    address = serve(out, "--reviewer", "Ann Lee")
    seen = browse("review.mjs", address)
    n = seen["before"]
    assert seen["afterReject"] == n - 1
    assert seen["afterUndo"] == n
    assert seen["afterRedo"] == n - 1
    assert seen["afterMark"] == seen["afterReload"] == n
    assert seen["added"] == 1
    assert seen["wentOn"]
    assert seen["galleryFocus"] == "gallery"
    assert seen["galleryMoved"]
    assert seen["states"][seen["rejected"]] == "rejected"
    assert seen["states"][seen["accepted"]] == "accepted"
    assert sorted(seen["states"].values()).count("added") == 1
    assert seen["complaints"] == []
    assert seen["axe"] == seen["axeHelp"] == []
    assert seen["foreign"] == []
    assert "token" not in seen["address"]
    # The files are those of a review, the original's are as they were, and the file can be counted.
    (place,) = (folder / "reviews").iterdir()
    review = json.loads((place / "review.json").read_text())
    assert (review["reviewer"], review["accepted"]) == ("Ann Lee", 1)
    assert review["tally"] == {"kept": n - 1, "moved": 0, "reclassified": 1, "removed": 0, "added": 1}
    assert review["after"]["mitoses"] == n
    assert digests(folder, own_files(folder)) == before
    assert run_command("verify", out).returncode == 0
    again = run_command("count", place / "mitoses.geojson", "--mpp", "0.25", "-o", out / "again.json")
    assert again.returncode == 0
    assert json.loads((out / "again.json").read_text())["mitoses"] == n


def many_nuclei(width_px: int, height_px: int) -> Iterator[dict[str, Any]]:
    """Yield 100,000 nuclei of 16 corners, spread over a slide."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(0, [width_px, height_px], (NUCLEI, 2))
    centres = centres[np.argsort(centres[:, 1])]
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for a in range(0, NUCLEI, 20_000):
        part = centres[a : a + 20_000]
        yield {
            "nucleus": np.arange(a + 1, a + 1 + len(part), dtype=np.uint32),
            "centroid_x_px": part[:, 0],
            "centroid_y_px": part[:, 1],
            "area_um2": np.full(len(part), 4.9),
            "geometry": shapely.to_wkb(shapely.polygons(part[:, None] + ring)),
        }


def large_slide(finished: Path, folder: Path) -> tuple[Path, Path]:
    """Return a result folder and its slide, 12,000 x 10,000 px of glass and a little tissue, with 100,000 nuclei."""
    path = folder / "large.tiff"
    width_px, height_px = 12_000, 10_000
    write_slide(path, SyntheticSlide(width_px, height_px, tissue_fraction=0.02, mitoses=4))
    result = folder / "large"
    shutil.copytree(finished / "synthetic slide", result)
    manifest = json.loads((result / "manifest.json").read_text())
    manifest["slide"] |= {"width_px": width_px, "height_px": height_px, "fingerprint": fingerprint(path)}
    (result / "manifest.json").write_text(json.dumps(manifest))
    write_nuclei(result / "nuclei.parquet", many_nuclei(width_px, height_px), "large", 0.25)
    return result, path


@pytest.mark.alone
def test_a_hundred_thousand_nuclei_move_at_twenty_frames_a_second(
    finished: Path, tmp_path: Path, serve: Callable[..., str], browse: Callable[..., dict[str, Any]]
) -> None:
    result, path = large_slide(finished, tmp_path)
    seen = browse("speed.mjs", serve(result, "--slide", str(path)))
    # Those at the very edge of the slide can lie half outside of the window.
    assert 0.99 * NUCLEI < seen["drawn"] <= NUCLEI
    assert seen["complaints"] == []
    best = max(seen["runs"], key=lambda run: run["draws"])
    assert best["draws"] >= 20, seen
    assert best["fps"] >= 20, seen


def test_the_bundle_is_what_its_sources_give(node_modules: Path, tmp_path: Path) -> None:
    frontend = ROOT / "wsi_minugan" / "viewer" / "frontend"
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=frontend, check=True)
    committed = {p.name: p.read_bytes() for p in (frontend.parent / "static").iterdir()}
    built = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert committed.keys() == built.keys()
    for name, content in built.items():
        assert committed[name] == content, f"{name} is old. Do: make viewer"
    assert sum(map(len, built.values())) < 3_000_000


def test_the_sources_are_typed_and_linted(node_modules: Path) -> None:
    frontend = ROOT / "wsi_minugan" / "viewer" / "frontend"
    for script in ("types", "lint"):
        done = subprocess.run(
            ["npm", "run", "-s", script], cwd=frontend, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
