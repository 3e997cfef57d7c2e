"""Print what the project declares that it needs, a requirement a line, for an environment that leaves some of it out."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path


def main() -> None:
    """Print the dependencies of pyproject.toml and of the extras that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    asked = parser.parse_args()
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [*project["dependencies"]]
    for extra in asked.extra:
        needed += project["optional-dependencies"][extra]
    print("\n".join(n for n in needed if re.split(r"[^\w.-]", n)[0] not in asked.without))  # noqa: T201


if __name__ == "__main__":
    main()
