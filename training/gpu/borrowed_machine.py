"""All that is done on a GPU that is lent for minutes: a wide teacher, two networks that learn from it, then tests and figures.

    python training/gpu/borrowed_machine.py --pack gpu.pack --out "$OUT" [--minutes 8] [--device cuda]

Run it from the root of a checkout. It needs what `minugan_training.packs.fit` needs. The teacher stays there. The other two come
home in files of at most 16 MB, in ``OUT/gpu-16`` and ``OUT/gpu-8``: join them with `minugan-train weights join`. Each training gets
its share of the minutes. Run again, it goes on where it was. The tests and the benchmark need the whole project; where it is
not installed, they are left out, and the log says so.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARES = {"gpu-teacher": 0.5, "gpu-16": 0.3, "gpu-8": 0.2}
"""Each training's share of the minutes, in the order in which they run."""
TEACHER = "gpu-teacher"
CARRIED = ("metrics.jsonl",)
"""Files of a run, beside its weights, that are taken home."""


def run(call: list[str], log: Path) -> int:
    """Run a command, its output into a log and onto the screen; returns its exit status."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "training"), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths.rstrip(os.pathsep), "OMP_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as f:
        with subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=ROOT
        ) as process:
            for line in process.stdout or ():
                f.write(line)
                sys.stdout.write(line)
        return process.returncode


def train(name: str, arguments: argparse.Namespace, minutes: float) -> int:
    """Run one of the trainings; what is taken home lies below the folder of results."""
    work, home = arguments.work, arguments.out / name
    call = [sys.executable, "-m", "minugan_training.packs.fit", str(arguments.experiments / f"{name}.yaml")]
    call += ["--pack", str(arguments.pack), "-o", str(work / name), "--device", arguments.device]
    call += ["--minutes", f"{minutes:.3f}"]
    if arguments.workers is not None:
        call += ["--workers", str(arguments.workers)]
    home.mkdir(parents=True, exist_ok=True)
    if name != TEACHER:
        call += ["--teacher", str(work / TEACHER / "weights.safetensors"), "--split", str(home), "--half"]
    status = run(call, arguments.out / f"{name}.log")
    for file in CARRIED:
        if (work / name / file).is_file():
            shutil.copy2(work / name / file, home / file)
    return status


def measure(out: Path) -> None:
    """Run the tests that need a GPU, and the benchmark, where the project is installed."""
    log = out / "measured.log"
    lacking = [
        m for m in ("pytest", "tifffile", "distributed", "zarr") if importlib.util.find_spec(m) is None
    ]
    if lacking:
        text = f"Tests and benchmark are left out: {', '.join(lacking)} not installed here.\n"
        log.write_text(text, "utf-8")
        sys.stdout.write(text)
        return
    run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"], log)
    slide = out / "drawn.tiff"
    draw = "import sys; from pathlib import Path; from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide; "
    draw += "write_slide(Path(sys.argv[1]), SyntheticSlide(8192, 8192, seed=1, mitoses=40))"
    if run([sys.executable, "-c", draw, str(slide)], log) == 0:
        run([sys.executable, "tests/benchmarks/gpu.py", str(slide)], log)
    slide.unlink(missing_ok=True)


def main() -> int:
    """Run all of it; returns 1 where a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="what is taken home")
    parser.add_argument("--work", type=Path, help="what stays there; by default `work` beside OUT")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all trainings together")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--experiments", type=Path, default=ROOT / "training" / "experiments")
    parser.add_argument("--no-measuring", action="store_true", help="train only")
    arguments = parser.parse_args()
    arguments.work = (arguments.work or arguments.out.parent / "work").absolute()
    for name in ("pack", "out", "experiments"):
        setattr(arguments, name, getattr(arguments, name).absolute())
    arguments.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    failed = [
        name for name, share in SHARES.items() if train(name, arguments, share * arguments.minutes) != 0
    ]
    sys.stdout.write(f"Trained in {(time.monotonic() - begun) / 60:.1f} minutes.\n")
    if not arguments.no_measuring:
        measure(arguments.out)
    if failed:
        sys.stdout.write(f"Failed: {', '.join(failed)}. Their logs are in {arguments.out}.\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
