"""Checkpoints: everything a run needs to go on, bit for bit; tensors as safetensors, the rest as JSON, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsi_minugan.errors import TrainingError
from wsi_minugan.outputs.atomic import atomic_path

CHECKPOINT = "checkpoint.safetensors"
_META = "state"


def flatten_optimizer(
    name: str, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimiser's tensors by name, and the rest of its state.

    Parameters
    ----------
    name : str
        What the tensors' names begin with.
    optimizer : Optimizer
        Whose state.

    Returns
    -------
    tensors : dict of str to Tensor
        Moments and steps.
    rest : dict of str to Any
        JSON's types.
    """
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}.{index}.{key}"] = value
            else:
                rest[f"{index}.{key}"] = value
    return tensors, rest


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put back what `flatten_optimizer` took.

    Parameters
    ----------
    name : str
        What the tensors' names begin with.
    optimizer : Optimizer
        It is changed.
    tensors : mapping of str to Tensor
        Of a checkpoint.
    rest : mapping
        What `flatten_optimizer` returned besides.
    """
    state: dict[int, dict[str, Any]] = {}
    for full, value in tensors.items():
        if full.startswith(name + "."):
            index, key = full[len(name) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = value
    for full, value in rest.items():
        index, key = full.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def module_tensors(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors under a name.

    Parameters
    ----------
    name : str
        What the tensors' names are to begin with.
    module : Module
        Whose weights and buffers.

    Returns
    -------
    dict of str to Tensor
        Not copied.
    """
    return {f"{name}.{k}": v for k, v in module.state_dict().items()}


def part_of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under a name, without it.

    Parameters
    ----------
    name : str
        What the wanted names begin with.
    tensors : mapping of str to Tensor
        Of a checkpoint.

    Returns
    -------
    dict of str to Tensor
        Not copied.
    """
    return {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(name + ".")}


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the one before.

    Parameters
    ----------
    folder : Path
        The run's folder.
    tensors : mapping of str to Tensor
        Weights and moments.
    state : mapping
        JSON's types.
    """
    kept = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic_path(folder / CHECKPOINT) as temporary:
        save_file(kept, temporary, metadata={_META: json.dumps(state)})


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and the state of a folder's checkpoint, or None where there is none.

    Parameters
    ----------
    folder : Path
        The run's folder.

    Returns
    -------
    tuple or None
        What `save_checkpoint` took.

    Raises
    ------
    TrainingError
        If it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as f:
            state = json.loads((f.metadata() or {})[_META])
        state["running"] = _renamed(state.get("running", {}))
        return _renamed(load_file(path)), _renamed(state)
    except (OSError, SafetensorError, KeyError, ValueError) as e:
        raise TrainingError(f"The checkpoint {path} cannot be read ({e}). Remove it to start again.") from e


def _renamed(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's parts under the names they have now; earlier versions called the discriminator a judge."""
    return {re.sub(r"^judge(?=[._]|$)", "discriminator", name): part for name, part in parts.items()}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights, whatever their precision, into a network.

    Parameters
    ----------
    network : Module
        It is changed.
    weights : mapping of str to Tensor
        By the network's own names.

    Raises
    ------
    TrainingError
        If they are of another network.
    """
    own = network.state_dict()
    try:
        network.load_state_dict({k: v.to(own[k].dtype) for k, v in weights.items()})
    except (KeyError, RuntimeError) as e:
        raise TrainingError(
            "The weights are of another network. Take those of a run with the same experiment's width."
        ) from e


def save_weights(folder: Path, weights: Mapping[str, Tensor], name: str = "weights.safetensors") -> None:
    """Write weights.

    Parameters
    ----------
    folder : Path
        The run's folder.
    weights : mapping of str to Tensor
        What to write.
    name : str
        The file's name.
    """
    with atomic_path(folder / name) as temporary:
        save_file({k: v.contiguous() for k, v in weights.items()}, temporary)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights.

    Parameters
    ----------
    path : Path
        A safetensors file.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    TrainingError
        If the file is missing or damaged.
    """
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as e:
        raise TrainingError(
            f"The weights {path} cannot be read ({e}). Give a file of weights that `minugan-train fit` wrote."
        ) from e
    return weights
