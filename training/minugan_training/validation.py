"""The figure that ends a training early."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from minugan_training.checkpoint import load_weights
from minugan_training.metrics import Detections, pooled
from minugan_training.patchscore import score_patches
from minugan_training.sampling import Place, Pool
from minugan_training.settings import Experiment, Validation


def validation_figure(
    experiment: Experiment, wanted: Validation, network: nn.Module, weights: dict[str, Tensor], pool: Pool
) -> float:
    """Return Dice of mitoses, or F1, on patches of the split "val".

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
    """
    load_weights(network, weights)
    places: list[Place] = []
    for source in experiment.sources:
        if source.at == "mitoses":
            places += pool.mitoses_of(source.model_copy(update={"splits": ("val",)}))
    order = np.random.default_rng(0).permutation(len(places))[: wanted.patches]
    scores = score_patches(network.eval(), experiment, pool, [places[k] for k in order], 0)
    if wanted.figure == "f1":
        return pooled([Detections(s.tp, s.fp, s.fn) for s in scores]).f1
    return float(np.mean([s.dice_mitoses for s in scores if s.dice_mitoses is not None] or [0.0]))
