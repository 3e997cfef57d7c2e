"""Train from a pack: `python -m minugan_training.packs.fit EXPERIMENT --pack FILE -o RUN --minutes 8`.

It needs torch, NumPy, OpenCV, pydantic, PyYAML and safetensors, and nothing else. So it runs where the project is not installed:
put the repository's root and its folder `training` onto PYTHONPATH.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from minugan_training.fitting.fit import Progress, fit
from minugan_training.packs.command import run_training, training_parser
from minugan_training.packs.packed_pool import PackedPool
from minugan_training.settings import Experiment, load_experiment
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.devices import choose_device, usable_cores

MOST_WORKERS = 12


@dataclass(frozen=True)
class PackedRun:
    """How to train from a pack.

    Attributes
    ----------
    device : {"cpu", "cuda", "auto"}
        Where.
    minutes : float, optional
        End after so many minutes, reading included.
    workers : int, optional
        Processes that make batches; by default one for each core but two, at most 12; none on a CPU.
    leave_out : sequence of str
        Scanners from which nothing is drawn.
    """

    device: str = "auto"
    minutes: float | None = None
    workers: int | None = None
    leave_out: Sequence[str] = ()


def with_weights(experiment: Experiment, start_from: Path | None, teacher: Path | None) -> Experiment:
    """Return an experiment with the weights to start from and those of the teacher, where they are given.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    start_from, teacher : Path, optional
        Files of weights.

    Returns
    -------
    Experiment
        The settings with them.

    Raises
    ------
    TrainingError
        If a teacher is given to an experiment that learns from none.
    """
    changed: dict[str, object] = {}
    if start_from is not None:
        changed["start_from"] = str(start_from)
    if teacher is not None:
        if experiment.distillation is None:
            raise TrainingError(
                f"{experiment.name} learns from no teacher. Give it a line 'distillation: {{weight: 1}}', or leave --teacher out."
            )
        changed["distillation"] = experiment.distillation.model_copy(update={"teacher": str(teacher)})
    return experiment.model_copy(update=changed)


def fit_from_pack(
    experiment: Experiment, pack: Path, folder: Path, run: PackedRun, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Train on a pack, from the folder's checkpoint if there is one, and return the weights to use.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pack : Path
        What `minugan-train pack` wrote, for this experiment or for one with the same sources.
    folder : Path
        The run's; see `fit`.
    run : PackedRun
        How.
    progress : callable, optional
        Told of every logged step.

    Returns
    -------
    dict of str to Tensor
        As `fit` returns them.

    Raises
    ------
    DataError
        If the pack cannot be read, or lacks what the experiment draws from.
    TrainingError
        As in `fit`.
    """
    begun = time.monotonic()
    cores = usable_cores()
    on_cpu = choose_device(run.device) == "cpu"
    workers = run.workers
    if workers is None:
        workers = 0 if on_cpu else max(0, min(MOST_WORKERS, cores - 2))
    pool = PackedPool(pack, threads=max(1, min(MOST_WORKERS, cores))).without_scanners(run.leave_out)
    minutes = None if run.minutes is None else max(0.0, run.minutes - (time.monotonic() - begun) / 60)
    return fit(experiment, pool, folder, progress, device=run.device, minutes=minutes, workers=workers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this command; a user's mistake ends in a sentence.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line by default.

    Returns
    -------
    int
        The exit status.
    """
    parser = training_parser("fit", __doc__)
    parser.add_argument("--pack", type=Path, required=True, help="what `minugan-train pack` wrote")
    parser.add_argument("--teacher", type=Path, help="weights of the network to learn from")
    parser.add_argument("--leave-out", nargs="*", default=[], help="draw nothing from these scanners")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_training(parser.parse_args(arguments), _train)


def _train(a: argparse.Namespace) -> None:
    experiment = with_weights(load_experiment(a.experiment), a.start_from, a.teacher)
    fit_from_pack(
        experiment, a.pack, a.out, PackedRun(a.device, a.minutes, a.workers, tuple(a.leave_out)), _progress
    )


def _progress(step: int, loss: float, left_s: float) -> None:
    sys.stdout.write(f"step {step}  loss {loss:.4f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
