"""Training of the second stage on candidates: seeded, checkpointed, resumed where it stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from minugan_training.classification.candidates import DARK, MITOSIS, Candidates
from minugan_training.classification.crops import CropSampler
from minugan_training.evaluation.metrics import average_precision
from minugan_training.fitting.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    load_weights,
    module_tensors,
    part_of,
    restore_optimizer,
    save_checkpoint,
    save_weights,
)
from wsi_minugan.errors import TrainingError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.card import ClassifierKind
from wsi_minugan.minugan.classifier import CandidateClassifier, crop_around, kind_of, new_classifier

log = logging.getLogger(__name__)

_WARM_UP_STEPS = 300
_CLIP_NORM = 3.0
_WEIGH_EVERY = 50
"""Steps after which hard candidates are weighed anew."""


class ClassifierExperiment(FrozenModel):
    """All that decides a training run of the second stage.

    Attributes
    ----------
    name : str
        Also the name of its folder.
    network : {"residual", "efficientnet-lite0"}
        Architecture.
    width : int
        Channels of a residual network after its first reduction.
    batch, steps : int
        Crops in a batch, and steps of the optimiser.
    learning_rate, weight_decay : float
        Of the optimiser.
    ema : float
        Share that the moving average of the weights keeps each step.
    seed : int
        Of weights, batches and changes.
    log_every : int
        Steps between lines of the log.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    network: ClassifierKind = "residual"
    width: int = Field(24, ge=4, le=256)
    batch: int = Field(64, ge=2)
    steps: int = Field(ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    seed: int = Field(0, ge=0)
    log_every: int = Field(400, ge=1)


@dataclass
class _State:
    """What training changes."""

    network: CandidateClassifier
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    difficulty: NDArray[np.float64]
    weights: NDArray[np.float64]
    step: int = 0
    loss: float = math.nan


def train_classifier(
    experiment: ClassifierExperiment,
    train: Candidates,
    val: Candidates | None,
    folder: Path,
    first: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train, from the folder's checkpoint if there is one, and return the moving averages of the weights.

    Parameters
    ----------
    experiment : ClassifierExperiment
        Settings.
    train : Candidates
        What is learnt from.
    val : Candidates, optional
        What the log's average precision is of; it chooses nothing. Without it the log has the loss alone.
    folder : Path
        Gets ``checkpoint.safetensors`` and ``weights.safetensors``.
    first : mapping of str to Tensor, optional
        Weights to begin with; random ones otherwise.

    Returns
    -------
    dict of str to Tensor
        By the network's own names.

    Raises
    ------
    TrainingError
        If the folder holds a run with other settings, or the loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sampler = CropSampler.of(train, experiment.seed)
    state = _start(experiment, sampler, first)
    _resume(folder, experiment, state)
    measured_on = None if val is None else (val, classifier_inputs(val.crops))
    while state.step < experiment.steps:
        _step(experiment, state, sampler)
        if state.step % _WEIGH_EVERY == 0:
            state.weights = sampler.weights(state.difficulty)
        if state.step % experiment.log_every == 0 or state.step == experiment.steps:
            precision = "" if measured_on is None else _precision(experiment, state, *measured_on)
            log.info("step %d  loss %.4f%s", state.step, state.loss, precision)
            _save(folder, experiment, state)
    return state.ema


def _start(
    experiment: ClassifierExperiment, sampler: CropSampler, first: Mapping[str, Tensor] | None
) -> _State:
    torch.manual_seed(experiment.seed)
    network = new_classifier(experiment.network, experiment.width)
    if first is not None:
        load_weights(network, first)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(),
        experiment.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=experiment.weight_decay,
    )
    ema = {k: v.clone() for k, v in network.state_dict().items()}
    difficulty = np.full(len(sampler.target), 0.5)
    return _State(network, optimizer, ema, difficulty, sampler.weights(difficulty))


def _rate(experiment: ClassifierExperiment, step: int) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    return (
        experiment.learning_rate * warm * max(0.002, 0.5 + 0.5 * math.cos(math.pi * step / experiment.steps))
    )


def _step(experiment: ClassifierExperiment, state: _State, sampler: CropSampler) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = _rate(experiment, state.step)
    state.network.train()
    torch.manual_seed(
        experiment.seed * 1_000_003 + state.step
    )  # of the dropout, so that a resumed run is the same
    images, target, chosen = sampler.batch(state.step, experiment.batch, state.weights)
    what = f"The loss of step {state.step + 1}"
    logits, loss = descend(state.network, state.optimizer, images, target, what)
    error = np.abs(torch.sigmoid(logits).numpy() - np.round(target))
    state.difficulty[chosen] = 0.5 * state.difficulty[chosen] + 0.5 * error
    decay = min(experiment.ema, (1 + state.step) / (10 + state.step))
    for k, v in state.network.state_dict().items():
        state.ema[k] = (
            state.ema[k].mul_(decay).add_(v, alpha=1 - decay) if v.is_floating_point() else v.clone()
        )
    state.loss = loss if math.isnan(state.loss) else 0.98 * state.loss + 0.02 * loss
    state.step += 1


def descend(
    network: CandidateClassifier,
    optimizer: torch.optim.Optimizer,
    images: NDArray[np.float32],
    target: NDArray[np.float32],
    what: str = "The loss",
) -> tuple[Tensor, float]:
    """Change a network's weights by one step.

    Parameters
    ----------
    network : CandidateClassifier
        In the mode in which it learns; it is changed.
    optimizer : Optimizer
        Of its weights.
    images : ndarray of float32, shape (n, 3, 64, 64)
        RGB in [-1, 1].
    target : ndarray of float32, shape (n,)
        Probabilities.
    what : str
        What an error calls the loss.

    Returns
    -------
    logits : Tensor, shape (n,)
        Before the step, without a gradient.
    loss : float
        Mean cross-entropy.

    Raises
    ------
    TrainingError
        If the loss is not a number; nothing is changed then.
    """
    logits = network(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target))
    if not math.isfinite(loss.item()):
        raise TrainingError(f"{what} is not a number. Take a lower learning rate.")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
    optimizer.step()
    return logits.detach(), loss.item()


def _precision(
    experiment: ClassifierExperiment, state: _State, val: Candidates, inputs: NDArray[np.uint8]
) -> str:
    """Return each patient's average precision in words."""
    found = by_patient(logits_of(averaged(experiment.width, state.ema), inputs), val)
    mean = np.mean(list(found.values())) if found else math.nan
    return f"  average precision {mean:.3f}: {', '.join(f'{k} {v:.3f}' for k, v in found.items())}"


def _save(folder: Path, experiment: ClassifierExperiment, state: _State) -> None:
    optimizer, rest = flatten_optimizer("optimizer", state.optimizer)
    tensors = (
        module_tensors("network", state.network) | optimizer | {f"ema.{k}": v for k, v in state.ema.items()}
    )
    tensors |= {"difficulty": torch.from_numpy(state.difficulty), "weights": torch.from_numpy(state.weights)}
    told = {
        "experiment": experiment.model_dump(mode="json"), "step": state.step, "loss": state.loss, "optimizer": rest,
    }  # fmt: skip
    save_checkpoint(folder, tensors, told)
    save_weights(folder, state.ema)


def _resume(folder: Path, experiment: ClassifierExperiment, state: _State) -> None:
    loaded = load_checkpoint(folder)
    if loaded is None:
        return
    tensors, rest = loaded
    if rest["experiment"] != experiment.model_dump(mode="json") or len(tensors["difficulty"]) != len(
        state.difficulty
    ):
        raise TrainingError(
            f"{folder} holds a run with other settings or candidates. Choose another folder, or remove it."
        )
    state.network.load_state_dict(part_of("network", tensors))
    restore_optimizer("optimizer", state.optimizer, tensors, rest["optimizer"])
    state.ema = part_of("ema", tensors)
    state.difficulty, state.weights = (tensors[k].numpy().copy() for k in ("difficulty", "weights"))
    state.step, state.loss = rest["step"], rest["loss"]
    log.info("Going on from step %d of %s.", state.step, folder)


def averaged(width: int, weights: dict[str, Tensor]) -> CandidateClassifier:
    """Return a classifier with given weights, of the architecture that they are of, in eval mode.

    Parameters
    ----------
    width : int
        Of a residual network.
    weights : dict of str to Tensor
        By the network's own names.

    Returns
    -------
    CandidateClassifier
        On the CPU.
    """
    network = new_classifier(kind_of(weights), width)
    load_weights(network, weights)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def classifier_inputs(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what the classifier sees of candidates' surroundings; ``(n, 128, 128, 3)`` in, ``(n, 64, 64, 3)`` out.

    Parameters
    ----------
    crops : ndarray of uint8, shape (n, 128, 128, 3)
        RGB.

    Returns
    -------
    ndarray of uint8, shape (n, 64, 64, 3)
        RGB.
    """
    middle = crops.shape[1] / 2
    return np.stack([crop_around(c, (middle, middle)) for c in crops])


@torch.inference_mode()
def logits_of(network: CandidateClassifier, inputs: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the logit of each input ``(n, 64, 64, 3)``, in one view.

    Parameters
    ----------
    network : CandidateClassifier
        In eval mode.
    inputs : ndarray of uint8, shape (n, 64, 64, 3)
        RGB.

    Returns
    -------
    ndarray of float, shape (n,)
        Logits.
    """
    out = np.zeros(len(inputs))
    for start in range(0, len(inputs), 128):
        part = inputs[start : start + 128].transpose(0, 3, 1, 2).astype(np.float32)
        x = torch.from_numpy(part).contiguous(memory_format=torch.channels_last) / 127.5 - 1
        out[start : start + 128] = network(x).numpy()
    return out


def by_patient(logits: NDArray[np.float64], of: Candidates) -> dict[str, float]:
    """Return the average precision among each patient's candidates; crops of AMi-Br count as one patient's.

    Dark nuclei, which the first stage does not propose, are left out.

    Parameters
    ----------
    logits : ndarray of float, shape (n,)
        Of each candidate.
    of : Candidates
        The candidates.

    Returns
    -------
    dict of str to float
        0 to 1, for those who have a mitosis.
    """
    out = {}
    patient = np.where(of.dataset == "amibr", "amibr", of.patient)
    for p in np.unique(patient):
        here = (patient == p) & (of.kind != DARK)
        hit = of.kind[here] == MITOSIS
        if hit.any():
            out[str(p)] = average_precision(logits[here], hit, int(hit.sum()))
    return out
