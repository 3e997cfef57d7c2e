"""Print words a sentence, and the school grade for which they are written (ARI), of the project's pages.

    python docs/scripts/readability.py              # the working tree
    python docs/scripts/readability.py 48e30e1      # a commit

It needs the extra [readability], in an environment of its own: textstat installs a package named "tests", which hides ours.

Code blocks, tables, headings, pictures and addresses are left out. A list item ends a sentence.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import textstat

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/*.md",
    "docs/*/*.md",
    "training/README.md",
    "jobs/README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
_BLOCK = re.compile(r"```.*?```", re.DOTALL)
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)(\{[^}]*\})?")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


def sentences_in(markdown: str) -> list[str]:
    """Return the sentences of a page's prose, one string each."""
    text = _BLOCK.sub("\n\n", _FRONT.sub("", markdown))
    paragraphs: list[str] = [""]
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(("#", "|", "<", "!!!", "???", "===", ":::", "!", "[!")):
            paragraphs.append("")
        elif _ITEM.match(line):
            paragraphs.append(_ITEM.sub("", line))
        else:
            paragraphs[-1] += " " + bare
    prose = (_LINK.sub(r"\1", p) for p in paragraphs)
    plain = (re.sub(r"https?://\S+", "link", re.sub(r"[*`_]", "", p)).strip() for p in prose)
    # A stop inside a file name or a number ends no sentence.
    parts = (s.strip() for p in plain for s in re.split(r"(?<=[.!?:;])\s+(?=[A-Z0-9\"(])|(?<=[.!?])\s*$", p))
    return [s for s in parts if len(s.split()) > 1]


def figures(texts: list[str]) -> tuple[int, float, float, float]:
    """Return words, words a sentence, the share of sentences above 25 words, and the automated readability index."""
    sentences = [s for text in texts for s in sentences_in(text)]
    words = [len(s.split()) for s in sentences]
    joined = " ".join(s if s[-1] in ".!?" else s + "." for s in sentences)
    long = sum(w > 25 for w in words) / max(1, len(words))
    return sum(words), sum(words) / max(1, len(words)), long, textstat.automated_readability_index(joined)


def pages(commit: str | None) -> Iterator[tuple[str, str]]:
    """Yield name and text of each page, of the working tree or of a commit."""
    if commit is None:
        for pattern in PAGES:
            yield from ((str(p.relative_to(ROOT)), p.read_text("utf-8")) for p in sorted(ROOT.glob(pattern)))
        return
    git = ["git", "-C", str(ROOT)]
    names = subprocess.run(
        [*git, "ls-tree", "-r", "--name-only", commit], capture_output=True, text=True, check=True
    )
    for name in names.stdout.split():
        if any(Path(name).match(p) and name.count("/") == p.count("/") for p in PAGES):
            text = subprocess.run(
                [*git, "show", f"{commit}:{name}"], capture_output=True, text=True, check=True
            ).stdout
            yield name, text


def main() -> None:
    """Print a line for each page, and one for all."""
    found = dict(pages(sys.argv[1] if len(sys.argv) > 1 else None))
    print(f"{'page':52} {'words':>6} {'a sentence':>11} {'over 25':>8} {'grade':>6}")
    for name, texts in [*((n, [t]) for n, t in found.items()), ("all", list(found.values()))]:
        count, mean, long, grade = figures(texts)
        print(f"{name:52} {count:6} {mean:11.1f} {100 * long:7.0f}% {grade:6.1f}")


if __name__ == "__main__":
    main()
