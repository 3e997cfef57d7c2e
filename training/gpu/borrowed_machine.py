r"""All that is done on a GPU that is lent for minutes: trainings, then tests and figures.

    python training/gpu/borrowed_machine.py --pack ship.pack --candidates train.pack --val val.pack \
        --start-from ship-12.safetensors --first lite0.safetensors --out "$OUT" [--minutes 8]
    python training/gpu/borrowed_machine.py --plan distil --pack gpu.pack --out "$OUT" [--minutes 8]

Run it from the root of a checkout. It needs what `minugan_training.packs.fit` needs. There are two plans:

- continue: the generator goes on from the weights of `--start-from`. Beside it, two classifiers of the second stage are trained
  from the weights of `--first`, and then go on with the candidates of `--val`, too.
- distil: a wide teacher, which stays there, then two networks that learn from it.

What comes home is in files of at most 16 MB, a folder for each training: join them with `minugan-train weights join`. Trainings of a
row run one after another, each for its share of the minutes; rows run at the same time. Run again, it goes on where it was. The
tests and the benchmark need the whole project; where it is not installed, they are left out, and the log says so.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CARRIED = ("metrics.jsonl",)
"""Files of a run, beside its weights, that are taken home."""


@dataclass(frozen=True)
class Training:
    """One training of a plan.

    Attributes
    ----------
    name : str
        Of its experiment.
    share : float
        Of the minutes.
    teacher : str, optional
        Training whose network it learns from.
    after : str, optional
        Training whose weights it goes on from.
    stays : bool
        Whether its weights stay on the machine.
    """

    name: str
    share: float
    teacher: str | None = None
    after: str | None = None
    stays: bool = False

    @property
    def of_second_stage(self) -> bool:
        """Whether it trains a classifier.

        Returns
        -------
        bool
            By the experiment's name.
        """
        return self.name.startswith("efficientnet")


PLANS = {
    "continue": (
        (Training("ship-13", 1.0),),
        (Training("efficientnet-2", 0.8), Training("efficientnet-2-all", 0.2, after="efficientnet-2")),
        (Training("efficientnet-3", 0.8), Training("efficientnet-3-all", 0.2, after="efficientnet-3")),
    ),
    "distil": (
        (
            Training("gpu-teacher", 0.5, stays=True),
            Training("gpu-16", 0.3, teacher="gpu-teacher"),
            Training("gpu-8", 0.2, teacher="gpu-teacher"),
        ),
    ),
}
WORKERS_OF_SECOND_STAGE = 2
"""Processes that make a classifier's batches, where there are so many cores."""


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
                sys.stdout.write(f"{log.stem}: {line}")
                sys.stdout.flush()
        return process.returncode


def workers_for(training: Training, plan: str, arguments: argparse.Namespace) -> int:
    """Return how many processes make a training's batches; the generator gets what the second stage leaves."""
    if arguments.workers is not None:
        return int(arguments.workers)
    if arguments.device == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0))
    beside = len(PLANS[plan]) - 1
    most = max(1, cores - len(PLANS[plan]) - 1 - beside * WORKERS_OF_SECOND_STAGE)
    return WORKERS_OF_SECOND_STAGE if training.of_second_stage else most


def call_of(training: Training, arguments: argparse.Namespace) -> list[str]:
    """Return the command of a training, without its time."""
    work = arguments.work
    folder = arguments.experiments / "second-stage" if training.of_second_stage else arguments.experiments
    module = "classify" if training.of_second_stage else "fit"
    call = [
        sys.executable,
        "-m",
        f"minugan_training.packs.{module}",
        str(folder / f"{training.name}.yaml"),
    ]
    call += ["-o", str(work / training.name), "--device", arguments.device]
    start = arguments.first if training.of_second_stage else arguments.start_from
    if training.after is not None:
        start = work / training.after / "weights.safetensors"
    if start is not None:
        call += ["--start-from", str(start)]
    if training.teacher is not None:
        call += ["--teacher", str(work / training.teacher / "weights.safetensors")]
    if not training.of_second_stage:
        return [*call, "--pack", str(arguments.pack)]
    if training.after is not None and arguments.val is not None:
        return [*call, "--candidates", *map(str, arguments.candidates), str(arguments.val)]
    return [*call, "--candidates", *map(str, arguments.candidates)]


def train(training: Training, arguments: argparse.Namespace) -> int:
    """Run one of the trainings; what is taken home lies below the folder of results."""
    work, home = arguments.work / training.name, arguments.out / training.name
    call = [*call_of(training, arguments), "--minutes", f"{training.share * arguments.minutes:.3f}"]
    call += ["--workers", str(workers_for(training, arguments.plan, arguments))]
    home.mkdir(parents=True, exist_ok=True)
    if not training.stays:
        call += ["--split", str(home), "--half"]
    status = run(call, arguments.out / f"{training.name}.log")
    for file in CARRIED:
        if (work / file).is_file():
            shutil.copy2(work / file, home / file)
    return status


def train_row(row: tuple[Training, ...], arguments: argparse.Namespace) -> list[str]:
    """Run trainings one after another; returns those that failed."""
    return [t.name for t in row if train(t, arguments) != 0]


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
    # These files alone: the others import more than such a machine has.
    tests = [str(p) for p in sorted((ROOT / "tests").glob("*/test_gpu.py"))]
    run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", *tests], log)
    slide = out / "drawn.tiff"
    draw = "import sys; from pathlib import Path; from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide; "
    draw += "write_slide(Path(sys.argv[1]), SyntheticSlide(8192, 8192, seed=1, mitoses=40))"
    if run([sys.executable, "-c", draw, str(slide)], log) == 0:
        run([sys.executable, "tests/benchmarks/gpu.py", str(slide)], log)
    slide.unlink(missing_ok=True)


def parsed() -> argparse.Namespace:
    """Return the command line's arguments, all paths absolute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plan", choices=list(PLANS), default="continue")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--candidates", type=Path, nargs="*", default=[], help="of the split train")
    parser.add_argument("--val", type=Path, help="candidates of the split val")
    parser.add_argument("--start-from", type=Path, help="the generator's first weights")
    parser.add_argument("--first", type=Path, help="the classifiers' first weights")
    parser.add_argument("--out", type=Path, required=True, help="what is taken home")
    parser.add_argument("--work", type=Path, help="what stays there; by default `work` beside OUT")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all trainings of a row together")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--experiments", type=Path, default=ROOT / "training" / "experiments")
    parser.add_argument("--no-measuring", action="store_true", help="train only")
    arguments = parser.parse_args()
    if arguments.plan == "continue" and not arguments.candidates:
        parser.error("the plan 'continue' needs --candidates")
    arguments.work = arguments.work or arguments.out.parent / "work"
    for name in ("work", "pack", "out", "experiments", "val", "start_from", "first"):
        path = getattr(arguments, name)
        setattr(arguments, name, path and path.absolute())
    arguments.candidates = [p.absolute() for p in arguments.candidates]
    return arguments


def main() -> int:
    """Run all of it; returns 1 where a training failed."""
    arguments = parsed()
    arguments.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    rows = PLANS[arguments.plan]
    with ThreadPoolExecutor(len(rows)) as at_once:
        failed = [
            name for names in at_once.map(lambda row: train_row(row, arguments), rows) for name in names
        ]
    sys.stdout.write(f"Trained in {(time.monotonic() - begun) / 60:.1f} minutes.\n")
    if not arguments.no_measuring:
        measure(arguments.out)
    if failed:
        sys.stdout.write(f"Failed: {', '.join(failed)}. Their logs are in {arguments.out}.\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
