"""Train the second stage from packed candidates: `python -m minugan_training.packs.classify EXPERIMENT --candidates FILE -o RUN`.

It needs what `minugan_training.packs.fit` needs, and runs where that runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from minugan_training.classification.candidates import joined, without_scanners
from minugan_training.classification.cross_fitting import Fold, judge_held_out, prepare_cross_fitting
from minugan_training.classification.pretrained import first_weights
from minugan_training.classification.train import ClassifierExperiment, train_classifier
from minugan_training.packs.candidates import packed_candidates
from minugan_training.packs.command import run_training, training_parser
from wsi_minugan.config import read_yaml


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
    parser = training_parser("classify", __doc__)
    parser.add_argument(
        "--candidates", type=Path, nargs="+", required=True, help="what `minugan-train pack-candidates` wrote"
    )
    parser.add_argument("--val", type=Path, help="candidates that the log's average precision is of")
    parser.add_argument("--leave-out", nargs="*", default=[], help="learn nothing from these scanners")
    parser.add_argument("--without-part", help="leave out the patients of a part, 1/4 say, and judge them")
    parser.add_argument(
        "--judged", type=Path, nargs="*", default=[], help="runs --without-part to learn from"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    return run_training(parser.parse_args(arguments), _train)


def _train(a: argparse.Namespace) -> None:
    experiment = read_yaml(a.experiment, ClassifierExperiment, "experiment")
    found = without_scanners(joined([packed_candidates(p) for p in a.candidates]), a.leave_out)
    val = None if a.val is None else packed_candidates(a.val)
    first = None if a.start_from is None else first_weights(a.start_from)
    part = None if a.without_part is None else Fold.parse(a.without_part)
    train, held_out = prepare_cross_fitting(experiment, found, part, a.judged)
    weights = train_classifier(
        experiment, train, val, a.out, first, device=a.device, minutes=a.minutes, workers=a.workers or 0
    )
    judge_held_out(experiment, weights, found, held_out, a.out, a.device)


if __name__ == "__main__":
    sys.exit(main())
