"""Every command of the documents runs, as written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, commands

MAINS = {"wsi-minugan": "minugan_cli.main", "minugan-train": "minugan_training.cli.main"}


def run(line: str, folder: Path) -> None:
    program, *arguments = line.split()
    code = f"from {MAINS[program]} import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path: Path, slide: Path) -> None:
    (tmp_path / "SLIDES").mkdir()
    shutil.copy(slide, tmp_path / "SLIDES" / "SLIDE.tiff")
    lines = commands(ROOT / "README.md", "wsi-minugan")
    assert len(lines) > 8
    for line in lines:
        if "corrected.geojson" in line:
            shutil.copy(tmp_path / "OUT" / "SLIDE" / "mitoses.geojson", tmp_path / "corrected.geojson")
        run(line.replace("inspect SLIDE", "inspect SLIDES/SLIDE.tiff"), tmp_path)
    assert (tmp_path / "tissue.png").is_file()
