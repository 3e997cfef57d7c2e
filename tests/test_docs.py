"""Every command of the README and of the training guide runs, as written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAINS = {"wsi-minugan": "wsi_minugan.cli.main", "minugan-train": "minugan_training.cli"}


def commands(path: Path, program: str) -> list[str]:
    """Return a document's command lines of a program, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(program)]


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


def test_every_training_command_names_what_there_is(tmp_path: Path) -> None:
    lines = commands(ROOT / "training" / "README.md", "minugan-train")
    assert len(lines) >= 5
    for line in lines:
        words = line.split()
        helped = [*words[: 3 if words[1] == "data" else 2], "--help"]
        done = subprocess.run(
            [sys.executable, "-c", "from minugan_training.cli import main; main()", *helped[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0
        for option in re.findall(r"\s(--[a-z-]+)", line):
            assert option in done.stdout, line
        for file in re.findall(r"training/\S+", line):
            assert (ROOT / file).is_file(), file


DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *ROOT.glob("*/README.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_links_and_tests_named_in_documents_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (document.parent / target).exists(), target
    tests = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name
