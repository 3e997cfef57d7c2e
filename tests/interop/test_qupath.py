"""Nuclei for QuPath, and the script that loads results: QuPath's rules are kept."""

import gzip
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import numpy as np
import pytest
from minugan_cli.exporting import export
from shapely.geometry import shape

from tests.test_docs import ROOT
from wsi_minugan import Result
from wsi_minugan.interop.qupath import write_nuclei_for_qupath
from wsi_minugan.interop.slide_pyramid import pyramid_of

HOST = Path(__file__).parent / "groovy" / "host.groovy"
SCRIPT = ROOT / "docs" / "qupath" / "load_minugan_results.groovy"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def features(finished: Path, slide: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    path = tmp_path_factory.mktemp("qupath") / "nuclei.geojson.gz"
    written = write_nuclei_for_qupath(Result.open(finished / slide.stem), path)
    with gzip.open(written, "rt", encoding="utf-8") as f:
        content = json.load(f)
    assert content["type"] == "FeatureCollection"
    return content["features"]


def test_every_nucleus_is_a_detection_that_qupath_takes(
    features: list[dict], finished: Path, slide: Path
) -> None:
    assert len(features) == len(Result.open(finished / slide.stem).nuclei)
    assert len({f["id"] for f in features}) == len(features)
    for f in features:
        uuid.UUID(f["id"])
        assert f["properties"]["objectType"] == "detection"
        assert f["properties"]["classification"].keys() == {"name", "color"}
        assert all(isinstance(v, float) for v in f["properties"]["measurements"].values())
        figure = shape(f["geometry"])
        assert figure.is_valid
        assert not figure.is_empty
        corners = np.array(
            figure.exterior.coords if figure.geom_type == "Polygon" else figure.geoms[0].exterior.coords
        )
        assert np.allclose(corners, np.round(corners, 2), atol=1e-6)
        assert "null" not in json.dumps(f)


def test_ids_stay_when_nuclei_are_written_again(
    features: list[dict], finished: Path, slide: Path, tmp_path: Path
) -> None:
    again = write_nuclei_for_qupath(Result.open(finished / slide.stem), tmp_path / "again.geojson.gz")
    with gzip.open(again, "rt", encoding="utf-8") as f:
        assert [x["id"] for x in json.load(f)["features"]] == [x["id"] for x in features]


def test_the_script_looks_where_the_files_lie_and_for_the_classes_that_are_written(
    finished: Path, slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(finished / slide.stem, out / "SLIDE")
    path = write_nuclei_for_qupath(Result.open(out / "SLIDE"))
    text = SCRIPT.read_text("utf-8")
    assert path == out / "qupath" / "SLIDE.nuclei.geojson.gz"
    assert '"qupath/${name}.nuclei.geojson.gz", "export/${name}.geojson.gz", "export/${name}.geojson"' in text
    assert '["Mitosis", "Hot spot", "High-power field", "Nucleus"]' in text
    manifest = json.loads((out / "SLIDE" / "manifest.json").read_text("utf-8"))
    for key in re.findall(r"slide\.(\w+)", re.sub(r"def slide = .*", "", text)):
        assert key in manifest["slide"], key
    assert "geojson_origin_px" in manifest


def run_script(out: Path, images: list[dict]) -> list[dict]:
    """Run the script, set to a folder of results and to nuclei, on images that QuPath has open; what it said and left there."""
    groovy, java = shutil.which("groovy"), shutil.which("java")
    if groovy is None or java is None:
        pytest.skip("needs Groovy: apt-get install groovy default-jre-headless")
    text = (
        SCRIPT.read_text("utf-8")
        .replace("/path/to/OUT", str(out))
        .replace("loadNuclei = false", "loadNuclei = true")
    )
    script = out.with_name("script.groovy")
    script.write_text(text, "utf-8")
    call = [groovy, "-cp", str(HOST.parent), str(HOST), str(script), json.dumps(images)]
    env = {"JAVA_HOME": str(Path(java).resolve().parents[1])} | os.environ
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_script_loads_a_folders_results_onto_the_images_by_name(
    finished: Path, slide: Path, features: list[dict], tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    shutil.copytree(finished, out)
    export(out, "geojson.gz", None)
    fits = {"file": slide.name.replace(" ", "%20"), "name": "any", "width": 1500, "height": 1300, "there": []}
    again = fits | {"there": ["Mitosis", "Nucleus", "Tumour"]}
    by_file, replaced, by_name, cropped, unknown = run_script(
        out,
        [
            fits,
            again,
            fits | {"file": "copy.tiff", "name": slide.name},
            again | {"width": 1400},
            again | {"file": "other.tiff"},
        ],
    )
    marks = json.loads((out / slide.stem / "mitoses.geojson").read_text("utf-8"))["features"]
    wanted = sorted([f["properties"]["classification"]["name"], f["id"]] for f in [*marks, *features])
    assert {name for name, _ in wanted} >= {"Mitosis", "Hot spot", "Nucleus"}
    for image in (by_file, by_name):
        assert sorted(image["objects"]) == wanted
        assert f"{len(wanted)} objects loaded, 0 replaced" in image["said"]
    assert sorted(replaced["objects"]) == sorted([*wanted, ["Tumour", "drawn before"]])
    for image, words in ((cropped, "--bounds-offset"), (unknown, "No results for")):
        assert words in image["said"]
        assert [name for name, _ in image["objects"]] == ["Mitosis", "Nucleus", "Tumour"]


def test_a_slide_is_a_pyramid_of_lazy_arrays(slide: Path) -> None:
    levels = pyramid_of(slide)
    assert levels[0].shape == (1300, 1500, 3)
    assert levels[0][200:210, 300:320].compute().shape == (10, 20, 3)
    assert levels[0].dtype == np.uint8
