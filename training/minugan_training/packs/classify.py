"""Train the second stage from packed candidates: `python -m minugan_training.packs.classify EXPERIMENT --candidates FILE -o RUN`.

It needs what `minugan_training.packs.fit` needs, and runs where that runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from minugan_training.classification.candidates import joined
from minugan_training.classification.pretrained import first_weights
from minugan_training.classification.train import ClassifierExperiment, train_classifier
from minugan_training.packs.candidates import packed_candidates
from minugan_training.packs.parts import split_weights
from wsi_minugan.config import read_yaml
from wsi_minugan.errors import MinuganError
from wsi_minugan.minugan.devices import choose_device


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
    parser = argparse.ArgumentParser(prog="python -m minugan_training.packs.classify", description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument(
        "--candidates", type=Path, nargs="+", required=True, help="what `minugan-train pack-candidates` wrote"
    )
    parser.add_argument("--val", type=Path, help="candidates that the log's average precision is of")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the run's folder; a run there resumes")
    parser.add_argument("--minutes", type=float, help="end after so many minutes, with a checkpoint")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--start-from", type=Path, help="weights to start from, published ones (.pth) too")
    parser.add_argument("--split", type=Path, help="folder for the weights in files of at most 16 MB")
    parser.add_argument("--half", action="store_true", help="split weights in 16 bits")
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        if choose_device(a.device) == "cpu":
            torch.set_num_threads(1)
        experiment = read_yaml(a.experiment, ClassifierExperiment, "experiment")
        train = joined([packed_candidates(p) for p in a.candidates])
        val = None if a.val is None else packed_candidates(a.val)
        first = None if a.start_from is None else first_weights(a.start_from)
        train_classifier(
            experiment, train, val, a.out, first, device=a.device, minutes=a.minutes, workers=a.workers
        )
        if a.split is not None:
            split_weights(a.out / "weights.safetensors", a.split, a.half)
    except MinuganError as e:
        sys.stderr.write(f"Error: {e}\n")
        return e.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
