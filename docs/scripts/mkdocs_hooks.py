"""What the site needs beyond mkdocs: pages that lie outside of docs/, and the list of decisions.

A link in a page is that of the repository, so that it also works in an editor. Here it becomes the site's.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "training/README.md": "training.md",
    "jobs/README.md": "jobs.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Files of the repository that are pages of the site, and what they are called there."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/, and the list of decisions."""
    for source, page in OUTSIDE.items():
        if source != "README.md":
            files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, "decisions/index.md", content=decisions()))
    return files


def decisions() -> str:
    """Return the page that lists all decisions, newest first."""
    rows = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"), reverse=True):
        title = path.read_text("utf-8").splitlines()[0].removeprefix("# ")
        rows.append(f"- [{title}](../docs/decisions/{path.name})")
    head = "# Decisions\n\nWhy things are as they are. Each page tells one question, what was measured, and what was decided.\n\n"
    return head + "\n".join(rows) + "\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn a page's links into the site's."""
    uri = page.file.src_uri
    source = next((s for s, p in OUTSIDE.items() if p == uri and s != "README.md"), f"docs/{uri}")
    if uri == "decisions/index.md":
        source = "decisions/index.md"
    return _LINK.sub(lambda m: _linked(m, source, uri), markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Leave out what mkdocs-click 0.9 writes where an option has no default (click 8.3 and later)."""
    return (
        html.replace("<code>Sentinel.UNSET</code>", "") if page.file.src_uri.endswith("commands.md") else html
    )


def _linked(match: re.Match[str], source: str, uri: str) -> str:
    picture, text, target = match.groups()
    if re.match(r"[a-z]+:|#|/", target):
        return match.group()
    path, _, anchor = target.partition("#")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    place = OUTSIDE.get(wanted, wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
    if wanted == "docs/decisions":
        place = "decisions/index.md"
    if place is None or place.startswith(("changes", "scripts")):  # a file of the repository that is no page
        return text
    relative = posixpath.relpath(place, posixpath.dirname(uri) or ".")
    return f"{picture}[{text}]({relative}{'#' + anchor if anchor else ''})"
