"""A bundle's networks, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wsi_minugan.errors import ModelError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.classifier import CandidateClassifier, new_classifier
from wsi_minugan.minugan.generator import Generator

N = TypeVar("N", bound=nn.Module)


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read weights; that a card names their digest says nothing of what is in them."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise ModelError(f"The weights {path} cannot be read ({e}). Copy the model again.") from e
    if any(t.is_complex() for t in tensors.values()):
        raise ModelError(f"The weights {path} are complex numbers, which no network here has.")
    return tensors


def load_classifiers(bundle: Bundle) -> list[CandidateClassifier]:
    """Return the members of a bundle's second stage with their weights, in eval mode; none where it has no such stage.

    Parameters
    ----------
    bundle : Bundle
        Card and folder of the model.

    Returns
    -------
    list of CandidateClassifier
        On the CPU, in fp32, in the order of the file.

    Raises
    ------
    ModelError
        If the weights do not fit, or are not all numbers.
    """
    stage = bundle.card.candidate_stage
    if stage is None:
        return []
    all_of_them = _filled(
        lambda: nn.ModuleList(new_classifier(kind, stage.width) for kind in stage.networks),
        bundle.classifier_weights,
    )
    return [m for m in all_of_them if isinstance(m, CandidateClassifier)]


def load_network(bundle: Bundle) -> Generator:
    """Return a bundle's generator with its weights, in eval mode.

    Parameters
    ----------
    bundle : Bundle
        Card and folder of the model.

    Returns
    -------
    Generator
        On the CPU, in fp32.

    Raises
    ------
    ModelError
        If the weights do not fit the architecture, or are not all numbers.
    """
    card = bundle.card.architecture
    return _filled(lambda: Generator(card.ngf, card.norm, card.antialias), bundle.weights)


def _filled(make: Callable[[], N], path: Path) -> N:
    """Return a network with the weights of a file, in eval mode; nothing is made that these do not fit.

    Raises
    ------
    ModelError
        If the weights do not fit the network that the card describes, or are not all numbers.
    """
    state = {k: v.float() for k, v in _tensors(path).items()}
    with torch.device("meta"):  # a card can claim a width that no memory holds
        wanted = {k: v.shape for k, v in make().state_dict().items()}
    if _shapes_needed(wanted) != _shapes_needed({k: v.shape for k, v in state.items()}):
        raise ModelError(f"The weights {path} do not fit the architecture on their card.")
    if not all(bool(torch.isfinite(v).all()) for v in state.values()):
        raise ModelError(
            f"The weights {path} are not all numbers: part of the network would be dead. Export the model again."
        )
    network = make()
    network.load_state_dict(state, strict=False)
    return network.eval()


def _shapes_needed(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Return shapes without those of counters, which training alone needs."""
    return {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}
