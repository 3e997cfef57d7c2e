"""What the commands that train from a pack share; they need no click."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from minugan_training.packs.parts import split_weights
from minugan_training.threads import settle_threads
from wsi_minugan.errors import MinuganError


def training_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return the arguments that every training from a pack has.

    Parameters
    ----------
    module : str
        Name of the command's module in this package.
    description : str, optional
        What `--help` says first.

    Returns
    -------
    ArgumentParser
        To be completed.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m minugan_training.packs.{module}", description=description
    )
    parser.add_argument("experiment", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the run's folder; a run there resumes")
    parser.add_argument("--minutes", type=float, help="end after so many minutes, with a checkpoint")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto")
    parser.add_argument("--workers", type=int, help="processes that make batches")
    parser.add_argument("--start-from", type=Path, help="weights to start from")
    parser.add_argument("--split", type=Path, help="folder for the weights in files of at most 16 MB")
    parser.add_argument("--half", action="store_true", help="split weights in 16 bits")
    return parser


def run_training(a: argparse.Namespace, train: Callable[[argparse.Namespace], object]) -> int:
    """Train, and split the weights where that is wanted; a user's mistake ends in a sentence.

    Parameters
    ----------
    a : Namespace
        What a `training_parser` made of the command line.
    train : callable
        Given it, trains; the weights then lie in its folder.

    Returns
    -------
    int
        The exit status.
    """
    try:
        settle_threads(a.device)
        train(a)
        if a.split is not None:
            split_weights(a.out / "weights.safetensors", a.split, a.half)
    except MinuganError as e:
        sys.stderr.write(f"Error: {e}\n")
        return e.exit_status
    return 0
