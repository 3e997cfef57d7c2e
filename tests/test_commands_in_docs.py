"""Every command and every piece of Python in the documents runs, as written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT, commands
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

MAINS = {"wsi-minugan": "minugan_cli.main", "minugan-train": "minugan_training.cli.main"}
PAGES = [ROOT / "README.md", ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
NEEDS_MORE = {"napari", "cuda", "to_file", "tiatoolbox"}
"""Words of code that needs what is not here: a display, a GPU, a driver for files of maps, TIAToolbox (tests/interop runs its page)."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(line: str, folder: Path) -> None:
    program, *arguments = line.split()
    code = f"from {MAINS[program]} import main; main()"
    call([sys.executable, "-c", code, *arguments], folder, line)


def call(arguments: list[str], folder: Path, what: str) -> None:
    done = subprocess.run(
        arguments,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=os.environ | {"MPLBACKEND": "agg"},
        preexec_fn=on_one_core,
    )
    assert done.returncode == 0, f"{what}\n{done.stdout}{done.stderr}"


def on_one_core() -> None:
    """Let a run see one core, for it then has one worker, which starts sooner than several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def python_in(page: Path) -> list[str]:
    """Return a page's pieces of Python that need nothing more than this package."""
    text = re.sub(r"(?m)^    ", "", page.read_text("utf-8"))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [b for b in blocks if not any(word in b for word in NEEDS_MORE)]


def indented(page: Path) -> list[str]:
    """Return a page's commands, those in lists too, each once."""
    text = re.sub(r"(?m)^    ", "", page.read_text("utf-8"))
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("wsi-minugan")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide, in which the README's commands ran."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "SLIDES").mkdir()
    for name in ("SLIDES/SLIDE.tiff", "slide.svs"):
        write_slide(folder / name, SyntheticSlide(900, 800, seed=4, mitoses=8))
    for line in commands(PAGES[0], "wsi-minugan"):
        run_as_meant(line, folder)
    return folder


def run_as_meant(line: str, folder: Path) -> None:
    """Run a command; the slide is the synthetic one, and what a pathologist corrected is what the run found."""
    if "corrected.geojson" in line:
        shutil.copy(folder / "OUT" / "SLIDE" / "mitoses.geojson", folder / "corrected.geojson")
    line = re.sub(r"(inspect|run) SLIDE\b", r"\1 SLIDES/SLIDE.tiff", line)
    run(line.replace("--once", "--once --settle-s 0.2"), folder)


def test_every_command_of_the_readme_runs(lab: Path) -> None:
    assert (lab / "tissue.png").is_file()
    assert (lab / "OUT" / "report.html").is_file()
    assert (lab / "demo-output" / "report.html").is_file()


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda p: p.stem)
def test_every_command_of_a_guide_runs(page: Path, lab: Path) -> None:
    known = set(commands(PAGES[0], "wsi-minugan"))
    for line in indented(page):
        if line not in known:
            run_as_meant(line, lab)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_in_the_documents_runs(page: Path, lab: Path) -> None:
    blocks = python_in(page)
    if page.name == "README.md":
        assert len(blocks) == 1
    if blocks:
        call([sys.executable, "-c", "\n".join(blocks)], lab, f"{page.name}:\n" + "\n".join(blocks))


def show(words: list[str], folder: Path) -> None:
    """Start a viewer, wait until it can be opened, and stop it."""
    code = f"from {MAINS[words[0]]} import main; main()"
    call = [sys.executable, "-c", code, *words[1:], "--no-browser"]
    with subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
    assert process.returncode == 0


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_every_command_of_the_review_guide_runs(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished, tmp_path / "OUT")
    (tmp_path / "SLIDE").symlink_to(tmp_path / "OUT" / "synthetic slide")
    shutil.copy(tmp_path / "SLIDE" / "mitoses.geojson", tmp_path / "corrected.geojson")
    lines = [line for line in commands(ROOT / "docs" / "review.md", "wsi-minugan") if line]
    # The page of a review comes last in the guide, after the review itself.
    assert [line.split()[1] for line in lines] == ["view", "view", "review", "view", "view"]
    for line in lines:
        words = line.replace("OUT/SLIDE", "SLIDE").split()
        if words[1] == "view" and "--export" not in words:
            show(words, tmp_path)
        else:
            run(" ".join(words), tmp_path)
    assert "<script" not in (tmp_path / "review.html").read_text("utf-8")
