"""Cross-validation as in the paper (p. 3, 5 folds of patches), and with folds that keep a patient's images together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from minugan_training.data.index import Entry
from minugan_training.evaluation.patches import PatchScore, score_patches
from minugan_training.fitting.fit import Progress, fit, make_folder
from minugan_training.fitting.state import build_network
from minugan_training.sampling.placing import around_mitoses
from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Experiment, Source
from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.outputs.atomic import write_text

By = Literal["patch", "patient"]
CROSSVAL = "crossval.json"
PLAN = "plan.json"


class CrossValidation(BaseModel):
    """One experiment's scores on all its folds.

    Attributes
    ----------
    experiment, settings : str, Experiment
        Name and settings.
    folds : int
        Number of folds.
    by : {"patch", "patient"}
        What a fold shares with no other.
    patches : list of PatchScore
        Each patch once, by the model that never saw it.
    """

    model_config = ConfigDict(frozen=True)

    experiment: str
    settings: Experiment
    folds: int
    by: By
    patches: list[PatchScore]


class _Plan(BaseModel):
    """What a cross-validation's folder is for; scores of another one are not to be taken for its own."""

    model_config = ConfigDict(frozen=True)

    settings: Experiment
    folds: int
    by: By
    patches: tuple[tuple[str, float, float], ...]


def patches_of(pool: Pool, experiment: Experiment, sources: Sequence[Source]) -> list[Place]:
    """Return a patch for each labelled mitosis of the sources, as `around_mitoses` places them.

    Parameters
    ----------
    pool : Pool
        Samples.
    experiment : Experiment
        Size of the patches, and seed.
    sources : sequence of Source
        Which images.

    Returns
    -------
    list of Place
        Middles of the patches.

    Raises
    ------
    DataError
        If there are none.
    """
    places = [p for s in sources if s.at == "mitoses" for p in pool.mitoses_of(s)]
    found = around_mitoses(pool, places, experiment.patch_px, experiment.seed)
    if not found:
        raise DataError("The experiment draws no patches around mitoses, so there is nothing to score.")
    return found


def folds_of(
    places: Sequence[Place], entries: Sequence[Entry], count: int, by: By, seed: int
) -> list[list[int]]:
    """Return the patches of each fold, of sizes as equal as may be.

    Parameters
    ----------
    places : sequence of Place
        The patches.
    entries : sequence of Entry
        The index that they point into.
    count : int
        Number of folds.
    by : {"patch", "patient"}
        What a fold may not share with another.
    seed : int
        Of the shuffling.

    Returns
    -------
    list of list of int
        Indices into `places`.

    Raises
    ------
    DataError
        If there are fewer groups than folds.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for n, (k, _, _) in enumerate(places):
        groups[entries[k].patient if by == "patient" else str(n)].append(n)
    if len(groups) < count:
        raise DataError(f"There are {len(groups)} groups ('{by}') for {count} folds. Choose fewer folds.")
    order = np.random.default_rng(seed).permutation(len(groups))
    names = sorted(groups)
    folds: list[list[int]] = [[] for _ in range(count)]
    # The largest groups first, each to the smallest fold; equals in shuffled order.
    for name in sorted((names[k] for k in order), key=lambda g: -len(groups[g])):
        min(folds, key=len).extend(groups[name])
    return folds


def trained(
    experiment: Experiment, pool: Pool, folder: Path, progress: Progress | None, device: str
) -> nn.Module:
    """Train in a folder, from its checkpoint if there is one; return the network, on the CPU, ready to score.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    folder : Path
        Of the run.
    progress : callable or None
        Told of every logged step.
    device : {"cpu", "cuda", "auto"}
        Where to train.

    Returns
    -------
    Module
        In eval mode.
    """
    network = build_network(experiment)
    network.load_state_dict(fit(experiment, pool, folder, progress, device=device))
    return network.eval()


def crossvalidate(
    experiment: Experiment,
    pool: Pool,
    out: Path,
    folds: int,
    by: By,
    progress: Progress | None = None,
    device: str = "cpu",
) -> CrossValidation:
    """Train and score every fold; folds that are done are not done again.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    out : Path
        Gets a folder for each fold, and ``crossval.json``.
    folds : int
        Number of folds.
    by : {"patch", "patient"}
        What a fold may not share with another.
    progress : callable, optional
        Told of every logged step.
    device : {"cpu", "cuda", "auto"}
        Where to train; folds are scored on the CPU.

    Returns
    -------
    CrossValidation
        Scores of every patch.

    Raises
    ------
    DataError
        If there are too few groups for the folds, or training would be shown what is held out.
    TrainingError
        If the folder holds another cross-validation.
    """
    _check_sources(experiment, by)
    places = patches_of(pool, experiment, experiment.sources)
    parts = folds_of(places, pool.entries, folds, by, experiment.seed)
    patches = tuple((pool.entries[k].image, x, y) for k, x, y in places)
    _begin(out, _Plan(settings=experiment, folds=folds, by=by, patches=patches))
    scores: list[PatchScore] = []
    for number, held_out in enumerate(parts):
        folder = out / f"fold-{number}"
        done = folder / "scores.json"
        if not done.is_file():
            # Patches of other sources, such as hard negatives, must not come from the patients held out either.
            hidden = {pool.entries[places[n][0]].patient for n in held_out} if by == "patient" else ()
            train = pool.only([places[n] for n in sorted(set(range(len(places))) - set(held_out))], hidden)
            network = trained(experiment, train, folder, progress, device)
            rows = score_patches(network, experiment, pool, [places[n] for n in held_out], number)
            write_text(done, json.dumps([r.model_dump() for r in rows]) + "\n", parents=True)
        scores += [PatchScore.model_validate(r) for r in json.loads(done.read_text("utf-8"))]
    result = CrossValidation(
        experiment=experiment.name, settings=experiment, folds=folds, by=by, patches=scores
    )
    write_text(out / CROSSVAL, result.model_dump_json(indent=1) + "\n", parents=True)
    return result


def _check_sources(experiment: Experiment, by: By) -> None:
    """Refuse what would train on held-out patches: these lie anywhere on images that other sources draw from."""
    if by == "patch" and any(s.at != "mitoses" for s in experiment.sources):
        raise DataError(
            f"The experiment {experiment.name} also draws patches that are not around mitoses, and with folds by patch some would "
            "show patches held out. Cross-validate it by patient."
        )


def _begin(out: Path, plan: _Plan) -> None:
    make_folder(out)
    path = out / PLAN
    if path.is_file():
        try:
            same = _Plan.model_validate_json(path.read_bytes()) == plan
        except (OSError, ValidationError):
            same = False
        if not same:
            raise TrainingError(
                f"{out} holds a cross-validation with other settings, folds or data. Choose another folder, or remove it."
            )
    write_text(path, plan.model_dump_json() + "\n")
