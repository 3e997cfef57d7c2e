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
        helped = [*words[: 3 if words[1] in {"data", "weights"} else 2], "--help"]
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


GUIDES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")])


def test_every_option_that_the_documents_name_exists() -> None:
    from click.testing import CliRunner
    from minugan_cli.main import app

    helped = {name: CliRunner().invoke(app, [name, "--help"]).output for name in app.commands}
    for page in GUIDES:
        for line in re.findall(r"^\s*\$? ?wsi-minugan (.*)$", page.read_text("utf-8"), re.MULTILINE):
            words = re.sub(r"\s+#.*", "", line).split()
            for option in re.findall(r"(?<=\s)--[a-z0-9-]+", " ".join(words)):
                assert option in helped[words[0]], f"{page.name}: {line}"


def test_the_repository_says_who_may_use_it_and_how_to_cite_it() -> None:
    import yaml

    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "license"} <= citation.keys()


def test_a_decisions_heading_has_the_number_of_its_file() -> None:
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert path.read_text("utf-8").startswith(f"# {path.name[:4]}: "), path.name


KINDS = {"feature", "bugfix", "doc", "removal", "misc"}


def test_every_change_has_a_name_that_the_changelog_takes() -> None:
    for path in (ROOT / "docs" / "changes").glob("*.md"):
        if path.name != "README.md":
            number, kind, *_ = path.name.split(".")
            assert kind in KINDS, path.name
            assert number.isdigit() or number.startswith("+"), path.name
