"""The figure that ends a training early."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from minugan_training.evaluation.metrics import Detections, pooled
from minugan_training.evaluation.patches import score_patches
from minugan_training.fitting.checkpoint import load_weights
from minugan_training.sampling.placing import around_mitoses
from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Experiment, Validation
from wsi_minugan.errors import DataError


def validation_places(experiment: Experiment, pool: Pool) -> list[Place]:
    """Return the patches that a training is judged on as it goes: those around mitoses of the split "val".

    Images that a source of the experiment draws from are no judges. So in a cross-validation, none of its patches, trained on
    or held out, has a say in when to stop.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.

    Returns
    -------
    list of Place
        Entry, x and y; empty where no validation is wanted.

    Raises
    ------
    DataError
        If a validation is wanted and there are none.
    """
    if experiment.validation is None:
        return []
    seen = {k for source in experiment.sources for k in pool.of(source)}
    places: list[Place] = []
    for source in experiment.sources:
        if source.at == "mitoses":
            places += pool.mitoses_on(k for k in pool.matching(source.datasets, ("val",)) if k not in seen)
    # An outline made from a centre is no truth to be measured against.
    if experiment.validation.figure == "dice":
        places = [p for p in places if pool.entries[p[0]].outlined]
    if not places:
        raise DataError(
            f"The experiment {experiment.name} has a validation, and the index has no mitoses to validate on: it needs images "
            "of its data sets in the split 'val' that it does not train on, and outlined ones for the figure 'dice'. "
            "Add some, or take out 'validation'."
        )
    order = np.random.default_rng(0).permutation(len(places))[: experiment.validation.patches]
    return around_mitoses(pool, [places[k] for k in order], experiment.patch_px, 0)


def validation_figure(
    experiment: Experiment,
    wanted: Validation,
    network: nn.Module,
    weights: dict[str, Tensor],
    pool: Pool,
    places: Sequence[Place],
) -> float:
    """Return Dice of mitoses, or F1, on patches.

    Parameters
    ----------
    experiment, wanted : Experiment, Validation
        Settings.
    network : Module
        A network of the experiment, to take the weights.
    weights : dict of str to Tensor
        What is judged.
    pool : Pool
        Samples.
    places : sequence of Place
        The patches; see `validation_places`.

    Returns
    -------
    float
        0 to 1.
    """
    load_weights(network, weights)
    scores = score_patches(network.eval(), experiment, pool, places, 0)
    if wanted.figure == "f1":
        return pooled([Detections(s.tp, s.fp, s.fn) for s in scores]).f1
    return float(np.mean([s.dice_mitoses for s in scores if s.dice_mitoses is not None] or [0.0]))
