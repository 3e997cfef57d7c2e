"""The pictures and commands of docs/counting.md."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, commands


def test_the_pictures_are_drawn_by_their_script(tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "docs" / "make_counting.py"), str(tmp_path)]
    subprocess.run(call, check=True, timeout=280)
    for name in ("counting-windows.png", "counting-interval.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (ROOT / "docs" / name).is_file()


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished / "synthetic slide", tmp_path / "OUT" / "SLIDE")
    for name, x in (("tumour", 900), ("necrosis", 200)):
        ring = [[0, 0], [x, 0], [x, 900], [0, 900], [0, 0]]
        area = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        (tmp_path / f"{name}.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "features": [area]})
        )
    for reader in "AB":
        (tmp_path / f"READER_{reader}").mkdir()
        for case in ("1", "2", "3"):
            shutil.copy(
                finished / "synthetic slide" / "mitoses.geojson",
                tmp_path / f"READER_{reader}" / f"{case}.geojson",
            )
    lines = commands(ROOT / "docs" / "counting.md", "wsi-minugan")
    assert len(lines) == 2
    for line in lines:
        code = "from minugan_cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *line.split()[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "agreement" / "agreement.svg").is_file()
