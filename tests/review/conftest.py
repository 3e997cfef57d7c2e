"""A finished slide to review, and a helper that edits its GeoJSON as QuPath's user would."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsi_minugan.review.result import Result, open_result

Features = list[dict[str, Any]]


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of a run's output folder, which the test may change."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def folder(out: Path) -> Path:
    """Return the folder of its slide."""
    return out / "synthetic slide"


@pytest.fixture
def result(folder: Path) -> Result:
    """Return the slide's result."""
    return open_result(folder)


@pytest.fixture
def corrected(folder: Path, tmp_path: Path) -> Callable[[Callable[[Features], Features]], Path]:
    """Return the function that edits the mitoses of the slide's GeoJSON and writes them to another file."""

    def write(edit: Callable[[Features], Features]) -> Path:
        content = json.loads((folder / "mitoses.geojson").read_text())
        kinds = ("annotation", "detection")
        windows, mitoses = (
            [f for f in content["features"] if f["properties"]["objectType"] == k] for k in kinds
        )
        content["features"] = [*windows, *edit(mitoses)]
        path = tmp_path / "corrected.geojson"
        path.write_text(json.dumps(content))
        return path

    return write
