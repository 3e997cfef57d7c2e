"""Kill a batch a hundred times at random moments; every time it gets to its end its bytes must be those of an undisturbed run.

python tests/benchmarks/chaos.py [--kills 100] [--seed 1]
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.jobs.test_kill import digests, kill_once, start, write_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    a = parser.parse_args()
    folder, rng = Path(tempfile.mkdtemp(prefix="chaos-")), random.Random(a.seed)
    write_batch(folder / "slides")
    start(folder / "slides", folder / "a").wait()
    expected, kills, ends = digests(folder / "a"), 0, 0
    while kills < a.kills:
        if kill_once(folder / "slides", folder / "b", kills, rng):
            kills += 1
            continue
        start(folder / "slides", folder / "b").wait()
        if digests(folder / "b") != expected:
            raise SystemExit(f"after {kills} kills the results differ: {folder}")
        ends += 1
        sys.stdout.write(f"{kills} kills, {ends} batches ended with equal bytes\n")
        sys.stdout.flush()
        shutil.rmtree(folder / "b")
    start(folder / "slides", folder / "b").wait()
    if digests(folder / "b") != expected:
        raise SystemExit(f"after {kills} kills the results differ: {folder}")
    sys.stdout.write(f"{kills} kills, {ends + 1} batches ended with equal bytes\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
