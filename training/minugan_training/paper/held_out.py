"""The paper's last step: train on all patches, and score sets that took no part (Figure 5, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from minugan_training.evaluation.patches import PatchScore, score_patches
from minugan_training.fitting.fit import Progress
from minugan_training.fitting.validation import validation_places
from minugan_training.paper.cross_validation import patches_of, trained
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment, Source
from wsi_minugan.errors import DataError
from wsi_minugan.outputs.atomic import write_text

FINAL = "final"
HELD_OUT = "heldout.json"


class HeldOut(BaseModel):
    """One experiment's scores on patches of images that it was not trained on.

    Attributes
    ----------
    experiment, settings : str, Experiment
        Name and settings.
    splits : tuple of str
        Splits of the index that were held out.
    patches : list of PatchScore
        Scores of the patches held out.
    """

    model_config = ConfigDict(frozen=True)

    experiment: str
    settings: Experiment
    splits: tuple[str, ...]
    patches: list[PatchScore]


def score_held_out(
    experiment: Experiment,
    pool: Pool,
    out: Path,
    datasets: Sequence[str],
    splits: Sequence[str],
    progress: Progress | None = None,
    device: str = "cpu",
) -> HeldOut:
    """Train on all of an experiment's patches, from a checkpoint if there is one, and score the patches held out.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    out : Path
        Gets the run in ``final``, and ``heldout.json``.
    datasets, splits : sequence of str
        Which images are held out.
    progress : callable, optional
        Told of every logged step.
    device : {"cpu", "cuda", "auto"}
        Where to train; the patches are scored on the CPU.

    Returns
    -------
    HeldOut
        Scores of every patch.

    Raises
    ------
    DataError
        If images held out share a patient with those that are trained or validated on, or hold no mitoses.
    """
    apart = Source(datasets=tuple(datasets), splits=tuple(splits), at="mitoses", per_batch=1)
    test = patches_of(pool, experiment, [apart])
    train = patches_of(pool, experiment, experiment.sources)
    _check_apart(experiment, pool, {k for k, _, _ in test})
    network = trained(experiment, pool.only(train), out / FINAL, progress, device)
    rows = score_patches(network, experiment, pool, test, 0)
    result = HeldOut(experiment=experiment.name, settings=experiment, splits=apart.splits, patches=rows)
    write_text(out / HELD_OUT, result.model_dump_json(indent=1) + "\n", parents=True)
    return result


def _check_apart(experiment: Experiment, pool: Pool, test: set[int]) -> None:
    """Refuse held-out patients that any source draws from, hard negatives too, or that say when to stop."""
    train = {k for source in experiment.sources for k in pool.of(source)}
    judges = {k for k, _, _ in validation_places(experiment, pool)}
    patients = {pool.entries[k].patient for k in train | judges} & {pool.entries[k].patient for k in test}
    if patients:
        raise DataError(
            f"The patients {', '.join(sorted(patients))} are in the data to train on or to validate on, and in the data held out. "
            "Give them one split each, or name other data sets."
        )
