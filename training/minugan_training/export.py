"""From a training run to a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from minugan_training.settings import Experiment
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.bundle import Bundle, save_bundle
from wsi_minugan.minugan.generator import Generator


def export_bundle(
    experiment: Experiment, weights: Path, card: Path, scores: Path | None, out: Path
) -> Bundle:
    """Write a bundle.

    Parameters
    ----------
    experiment : Experiment
        What was trained.
    weights : Path
        ``weights.safetensors`` of the run.
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
        state = load_file(weights)
        fields = yaml.safe_load(card.read_text("utf-8"))
        measured = json.loads(scores.read_text("utf-8")) if scores is not None else {}
        network = Generator(experiment.ngf, experiment.norm)
        network.load_state_dict({k: v.to(network.state_dict()[k].dtype) for k, v in state.items()})
    except (OSError, SafetensorError, yaml.YAMLError, ValueError, KeyError, RuntimeError) as e:
        raise TrainingError(f"The bundle cannot be made: {e}.") from e
    architecture = {"ngf": experiment.ngf, "norm": experiment.norm}
    full = {"architecture": architecture, "mpp": 0.25, "scores": measured} | fields
    return save_bundle(out, network.state_dict(), full)
