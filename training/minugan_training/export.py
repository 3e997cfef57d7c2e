"""From a training run to a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minugan_training.evaluation.intervals import by_patient
from minugan_training.mean_weights import mean_of
from minugan_training.settings import Experiment
from wsi_minugan.config import load_yaml, problems_in
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.bundle import Bundle, save_bundle
from wsi_minugan.minugan.card import ClassifierKind, ModelCard, PatientFigures
from wsi_minugan.minugan.classifier import kind_of
from wsi_minugan.minugan.generator import Generator


@dataclass(frozen=True)
class SecondStageFiles:
    """Files of the second stage.

    Attributes
    ----------
    classifiers : sequence of Path
        Weights that `minugan-train classify` wrote, one file for each member of the ensemble; none: no second stage.
    calibration : Path, optional
        What `minugan-train calibrate` wrote; its operating points and figures by patient go onto the card, too.
    """

    classifiers: Sequence[Path] = ()
    calibration: Path | None = None


def export_bundle(
    experiment: Experiment,
    weights: Sequence[Path],
    card: Path,
    scores: Path | None,
    out: Path,
    second_stage: SecondStageFiles = SecondStageFiles(),
    stain: Path | None = None,
) -> Bundle:
    """Write a bundle.

    Parameters
    ----------
    experiment : Experiment
        What was trained.
    weights : sequence of Path
        ``weights.safetensors`` of the run, or of several that went on from each other: these are averaged.
    card : Path
        YAML with name, version, training_data, licence and thresholds, and the F1 of two readers
        (`reader_f1`) where it is known.
    scores : Path, optional
        What `evaluate` measured.
    out : Path
        The bundle's folder.
    second_stage : SecondStageFiles
        The second stage, if there is one.
    stain : Path, optional
        What `minugan-train stain` measured.

    Returns
    -------
    Bundle
        What was written.

    Raises
    ------
    TrainingError
        If a file cannot be read or does not fit; nothing is written then.
    """
    if experiment.network != "minugan":
        raise TrainingError("Only MiNuGAN generators become bundles; a U-Net is a baseline to compare with.")
    try:
        states = [load_file(w) for w in weights]
        classifiers = [load_file(w) for w in second_stage.classifiers]
        measured, calibration, stains = (
            json.loads(p.read_text("utf-8")) if p is not None else {}
            for p in (scores, second_stage.calibration, stain)
        )
        network = Generator(experiment.ngf, experiment.norm, experiment.antialias)
        network.load_state_dict(_averaged(states, network.state_dict()))
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as e:
        raise TrainingError(f"The bundle cannot be made: {e}.") from e
    architecture = {"ngf": experiment.ngf, "norm": experiment.norm, "antialias": experiment.antialias}
    known = {"architecture": architecture, "mpp": 0.25, "scores": measured, "stain": stains or None}
    full = _full_card(card, known, calibration, [kind_of(c) for c in classifiers])
    members = {f"{n}.{k}": v for n, c in enumerate(classifiers) for k, v in c.items()}
    return save_bundle(out, network.state_dict(), full, classifiers=members)


def _full_card(
    path: Path, known: Mapping[str, Any], calibration: Mapping[str, Any], kinds: Sequence[ClassifierKind]
) -> dict[str, Any]:
    """Return a card's fields with those that are known without it, after a check that they make a card."""
    try:
        fields = load_yaml(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        raise TrainingError(f"The card {path} cannot be read: {e}.") from e
    if not isinstance(fields, dict):
        raise TrainingError(
            f"The card {path} must hold lines of 'field: value': name, version, training_data, licence and thresholds. "
            "training/cards has one to begin with."
        )
    full = {**known, **{str(k): v for k, v in fields.items()}}
    reader_f1 = full.pop("reader_f1", None)
    if kinds:
        measured = {k: calibration[k] for k in ("weight", "first_stage_weight", "bias") if k in calibration}
        stage = full.get("candidate_stage") or {}
        members = {"members": len(kinds), "kinds": kinds, "weights_sha256": "0" * 64}
        full["candidate_stage"] = {**stage, **measured, **members}
        full["operating_points"] = calibration.get("points", {})
        full["reliability"] = _reliability(calibration) | {"reader_f1": reader_f1} if calibration else None
    else:
        full.pop("candidate_stage", None)
    try:
        ModelCard.model_validate(full | {"weights_sha256": "0" * 64})
    except ValidationError as e:
        raise TrainingError(f"The card {path} does not fit: {problems_in(e)}. Complete it.") from e
    return full


def _reliability(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return each patient's errors at each operating point, those of several scanners together."""
    points = {
        name: {
            "patients": by_patient(
                PatientFigures(**{k: r[k] for k in PatientFigures.model_fields}) for r in rows
            )
        }
        for name, rows in calibration["patients"].items()
    }
    return {"operating_points": points, "radius_um": calibration["radius_um"]}


def _averaged(states: Sequence[dict[str, Tensor]], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of weights of the names and types that are wanted; counters that no inference needs may be missing."""
    return {
        k: mean_of([s[k] for s in states]).to(v.dtype) if all(k in s for s in states) else v
        for k, v in wanted.items()
        if k in states[0] or k.endswith("num_batches_tracked")
    }
