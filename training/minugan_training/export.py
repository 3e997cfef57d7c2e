"""From a training run to a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minugan_training.settings import Experiment
from wsi_minugan.config import problems_in
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.bundle import Bundle, ModelCard, save_bundle
from wsi_minugan.minugan.generator import Generator


def export_bundle(
    experiment: Experiment, weights: Sequence[Path], card: Path, scores: Path | None, out: Path
) -> Bundle:
    """Write a bundle.

    Parameters
    ----------
    experiment : Experiment
        What was trained.
    weights : sequence of Path
        ``weights.safetensors`` of the run, or of several that went on from each other: these are averaged.
    card : Path
        YAML with name, version, training_data, licence and thresholds.
    scores : Path, optional
        What `evaluate` measured.
    out : Path
        The bundle's folder.

    Raises
    ------
    TrainingError
        If a file cannot be read or does not fit; nothing is written then.
    """
    if experiment.network != "minugan":
        raise TrainingError("Only MiNuGAN generators become bundles; a U-Net is a baseline to compare with.")
    try:
        states = [load_file(w) for w in weights]
        measured = json.loads(scores.read_text("utf-8")) if scores is not None else {}
        network = Generator(experiment.ngf, experiment.norm)
        network.load_state_dict(_averaged(states, network.state_dict()))
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as e:
        raise TrainingError(f"The bundle cannot be made: {e}.") from e
    architecture = {"ngf": experiment.ngf, "norm": experiment.norm}
    known = {"architecture": architecture, "mpp": 0.25, "scores": measured}
    return save_bundle(out, network.state_dict(), _full_card(card, known))


def _full_card(path: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's fields with those that are known without it, after a check that they make a card."""
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        raise TrainingError(f"The card {path} cannot be read: {e}.") from e
    if not isinstance(fields, dict):
        raise TrainingError(
            f"The card {path} must hold lines of 'field: value': name, version, training_data, licence and thresholds. "
            "training/cards has one to begin with."
        )
    full = {**known, **{str(k): v for k, v in fields.items()}}
    try:
        ModelCard.model_validate(full | {"weights_sha256": "0" * 64})
    except ValidationError as e:
        raise TrainingError(f"The card {path} does not fit: {problems_in(e)}. Complete it.") from e
    return full


def _averaged(states: Sequence[dict[str, Tensor]], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of weights of the names and types that are wanted; counters that no inference needs may be missing."""
    return {
        k: sum((s[k].float() for s in states), 0 * v.float()).div(len(states)).to(v.dtype)
        if all(k in s for s in states)
        else v
        for k, v in wanted.items()
        if k in states[0] or k.endswith("num_batches_tracked")
    }
