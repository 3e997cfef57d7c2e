"""The mean of several networks' weights: one network that costs no more than each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from minugan_training.fitting.checkpoint import read_weights
from wsi_minugan.errors import TrainingError
from wsi_minugan.outputs.atomic import write_bytes

_LAST_LAYER = "head."


def mean_weights(files: Sequence[Path], out: Path, logits_times: float = 1.0) -> None:
    """Write the mean of weights of the same architecture.

    Its network is of use where all of them began with the same weights (Wortsman et al. 2022,
    <https://arxiv.org/abs/2203.05482>). A mean classifier's logits are nearer to 0 than those that it is of.

    Parameters
    ----------
    files : sequence of Path
        At least one.
    out : Path
        The file of the mean.
    logits_times : float
        What a classifier's logits are multiplied by, so that they count as much as another member's of the second stage.

    Raises
    ------
    TrainingError
        If one cannot be read, they are of different networks, or logits are to be multiplied that a network does not have.
    """
    all_of = [read_weights(f) for f in files]
    shapes = [{k: v.shape for k, v in w.items()} for w in all_of]
    for file, own in zip(files, shapes, strict=True):
        if own != shapes[0]:
            raise TrainingError(f"{file} and {files[0]} hold different networks, which have no mean.")
    mean = {k: mean_of([w[k] for w in all_of]) for k in all_of[0]}
    last = [k for k in mean if k.startswith(_LAST_LAYER)]
    if logits_times != 1.0 and not last:
        raise TrainingError(f"{files[0]} holds no classifier, so there are no logits to multiply.")
    mean |= {k: mean[k] * logits_times for k in last}
    write_bytes(out, save(mean), parents=True)


def mean_of(values: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors; of counters the first.

    Parameters
    ----------
    values : sequence of Tensor
        At least one, all of one shape and type.

    Returns
    -------
    Tensor
        Of that shape and type.
    """
    if not values[0].is_floating_point():
        return values[0].contiguous()
    return torch.stack([v.double() for v in values]).mean(0).to(values[0].dtype).contiguous()
