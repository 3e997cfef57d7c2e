"""Find dead links in the built site: pages, files and anchors.

    python docs/scripts/links.py build/site

Links to other servers are not followed: a check must not depend on the network. What a page loads from one is an error.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of one page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's link and its anchor."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
                if tag in ("script", "img", "iframe") or dict(attrs).get("rel") == "stylesheet":
                    self.loaded.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """Return a line for each link of a site that leads nowhere."""
    pages = {p: Page(p.read_text("utf-8")) for p in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{path.relative_to(site)}: {link}: no such file")
            elif target in pages and not _is_place(unquote(parts.fragment), pages[target]):
                found.append(f"{path.relative_to(site)}: {link}: no such place")
    return found


def _is_place(fragment: str, page: Page) -> bool:
    """Return whether a page has an anchor; those of the theme's own switches are made by its script."""
    return not fragment or fragment.startswith("__") or fragment in page.anchors


def outside_links(site: Path) -> list[str]:
    """Return every script, style and picture that a site takes from another server."""
    found = []
    for path in site.rglob("*.html"):
        loaded = Page(path.read_text("utf-8")).loaded
        found += [f"{path.relative_to(site)}: loads {v}" for v in loaded if v.startswith(("http", "//"))]
    return found


def main() -> None:
    """Print what is dead, and end with 1 if anything is."""
    site = Path(sys.argv[1]).resolve()
    found = dead_links(site) + outside_links(site)
    print("\n".join(found) or "No dead links.")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
