"""How much of one worker's time two need for a slide, whole commands, start and end included.

    python tests/benchmarks/workers.py [SLIDE] [--side 20000] [--tissue 0.4] [--pairs 2] [--precision fp32]

Runs them in turn, prints each pair's times and their ratio, and says whether all results have the same bytes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import measured, run_command, synthetic_slide


def digests(out: Path) -> dict[str, object]:
    """Return what each manifest below a folder says of its files."""
    return {p.parent.name: json.loads(p.read_text())["files"] for p in out.glob("*/manifest.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tissue", type=float, default=0.4)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    a = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        folder = Path(name)
        slide = a.slide or synthetic_slide(folder, a.side, a.tissue)
        for pair in range(a.pairs):
            times = []
            for workers in (1, 2) if pair % 2 == 0 else (2, 1):
                out = folder / f"out-{pair}-{workers}"
                call = run_command(["run", str(slide), "-o", str(out), "--precision", a.precision], workers)
                times.append((workers, measured(call)[0]))
                found.append(digests(out))
            one, two = (t for _, t in sorted(times))
            sys.stdout.write(f"one worker {one:.1f} s, two {two:.1f} s: {two / one:.3f}\n")
            sys.stdout.flush()
    same = all(f and f == found[0] for f in found)
    sys.stdout.write("all results have the same bytes\n" if same else "the results differ\n")


if __name__ == "__main__":
    main()
