"""Documents name only what there is: links, tests, options, files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(path: Path, program: str) -> list[str]:
    """Return a document's command lines of a program, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(program)]


def test_every_training_command_names_what_there_is(tmp_path: Path) -> None:
    lines = commands(ROOT / "training" / "README.md", "minugan-train")
    assert len(lines) >= 5
    for line in lines:
        words = line.split()
        helped = [*words[: 3 if words[1] == "data" else 2], "--help"]
        done = subprocess.run(
            [sys.executable, "-c", "from minugan_training.cli.main import main; main()", *helped[1:]],
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
