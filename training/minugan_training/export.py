"""From a training run to a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minugan_training.settings import Experiment
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.bundle import Bundle, save_bundle
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
        If a file cannot be read or does not fit.
    """
    if experiment.network != "minugan":
        raise TrainingError("Only MiNuGAN generators become bundles; a U-Net is a baseline to compare with.")
    try:
        states = [load_file(w) for w in weights]
        fields = yaml.safe_load(card.read_text("utf-8"))
        measured = json.loads(scores.read_text("utf-8")) if scores is not None else {}
        network = Generator(experiment.ngf, experiment.norm)
        network.load_state_dict(_averaged(states, network.state_dict()))
    except (OSError, SafetensorError, yaml.YAMLError, ValueError, KeyError, RuntimeError) as e:
        raise TrainingError(f"The bundle cannot be made: {e}.") from e
    architecture = {"ngf": experiment.ngf, "norm": experiment.norm}
    full = {"architecture": architecture, "mpp": 0.25, "scores": measured} | fields
    return save_bundle(out, network.state_dict(), full)


def _averaged(states: Sequence[dict[str, Tensor]], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of weights of the names and types that are wanted; counters that no inference needs may be missing."""
    return {
        k: sum((s[k].float() for s in states), 0 * v.float()).div(len(states)).to(v.dtype)
        if all(k in s for s in states)
        else v
        for k, v in wanted.items()
        if k in states[0] or k.endswith("num_batches_tracked")
    }
