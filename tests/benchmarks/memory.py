"""Peak memory of a run's whole process tree, for a small and a large synthetic slide with the same share of tissue.

python tests/benchmarks/memory.py [SLIDE ...] [--sides 10000 60000] [--tissue 0.1]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from common import measured, run_command, synthetic_slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slides", type=Path, nargs="*", help="slides to run instead of drawn ones")
    parser.add_argument("--sides", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--tissue", type=float, default=0.1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        slides = arguments.slides or [
            synthetic_slide(Path(folder), side, arguments.tissue) for side in arguments.sides
        ]
        for k, path in enumerate(slides):
            seconds, peak = measured(run_command(["run", str(path), "-o", str(Path(folder) / f"out-{k}")]))
            sys.stdout.write(f"{path.name}: peak {peak:.0f} MB, {seconds:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
