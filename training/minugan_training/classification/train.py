"""Training of the second stage on candidates: seeded, checkpointed, resumed where it stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from minugan_training.classification.batches import CropBatch, crop_batches
from minugan_training.classification.candidates import Candidates
from minugan_training.classification.crops import CropSampler
from minugan_training.classification.judging import averaged, by_patient, classifier_inputs, logits_of
from minugan_training.clock import Clock
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
from minugan_training.fitting.distributed import local_device
from minugan_training.fitting.state import move_averages
from wsi_minugan.errors import TrainingError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.card import ClassifierKind
from wsi_minugan.minugan.classifier import CandidateClassifier, new_classifier

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
    precision : {"fp32", "bf16"}
        Arithmetic of the network; weights and averages stay in fp32.
    stain : float
        Strength of the changes of stain and colour (`change_stains`).
    soft_labels : float
        Share of each label that networks give which did not see the patient; see `cross_fitting`.
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
    precision: Literal["fp32", "bf16"] = "fp32"
    stain: float = Field(1.0, ge=0, le=2)
    soft_labels: float = Field(0, ge=0, le=1)


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
    *,
    device: str = "cpu",
    minutes: float | None = None,
    workers: int = 0,
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
    device : {"cpu", "cuda", "auto"}
        Where to train.
    minutes : float, optional
        End after so many minutes of this call, with a checkpoint; the learning rate falls by the clock, too.
    workers : int
        Processes that make batches ahead of the steps; 0: this process makes them. With them, candidates that turn out hard are
        drawn more often a few batches later.

    Returns
    -------
    dict of str to Tensor
        By the network's own names, on the CPU.

    Raises
    ------
    TrainingError
        If the folder holds a run with other settings, or the loss is not a number.
    DeviceError
        If the device is not there.
    """
    clock = Clock(minutes)
    folder.mkdir(parents=True, exist_ok=True)
    sampler = CropSampler.of(train, experiment.seed, experiment.stain)
    state = _start(experiment, sampler, first, torch.device(local_device(device)))
    _resume(folder, experiment, state, clock)
    measured_on = None if val is None else (val, classifier_inputs(val.crops))
    batches = crop_batches(
        sampler, range(state.step, experiment.steps), experiment.batch, lambda: state.weights, workers
    )
    ended = state.step >= experiment.steps
    while not ended:
        _step(experiment, state, next(batches), clock.share)
        ended = state.step == experiment.steps or clock.over
        if state.step % _WEIGH_EVERY == 0:
            state.weights = sampler.weights(state.difficulty)
        if state.step % experiment.log_every == 0 or ended:
            precision = "" if measured_on is None else _precision(experiment, state, *measured_on)
            log.info("step %d  loss %.4f%s", state.step, state.loss, precision)
            _save(folder, experiment, state, clock)
    return _on_cpu(state.ema)


def _start(
    experiment: ClassifierExperiment,
    sampler: CropSampler,
    first: Mapping[str, Tensor] | None,
    device: torch.device,
) -> _State:
    torch.manual_seed(experiment.seed)
    network = new_classifier(experiment.network, experiment.width)
    if first is not None:
        load_weights(network, first)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(),
        experiment.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=experiment.weight_decay,
    )
    ema = {k: v.clone() for k, v in network.state_dict().items()}
    difficulty = np.full(len(sampler.target), 0.5)
    return _State(network, optimizer, ema, difficulty, sampler.weights(difficulty))


def _rate(experiment: ClassifierExperiment, step: int, share_of_time: float) -> float:
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    done = max(step / experiment.steps, share_of_time)
    return experiment.learning_rate * warm * max(0.002, 0.5 + 0.5 * math.cos(math.pi * done))


def _step(experiment: ClassifierExperiment, state: _State, batch: CropBatch, share_of_time: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = _rate(experiment, state.step, share_of_time)
    state.network.train()
    torch.manual_seed(
        experiment.seed * 1_000_003 + state.step
    )  # of the dropout, so that a resumed run is the same
    images, target, chosen = batch
    what = f"The loss of step {state.step + 1}"
    logits, loss = descend(state.network, state.optimizer, images, target, what, experiment.precision)
    error = np.abs(torch.sigmoid(logits.float()).cpu().numpy() - np.round(target))
    state.difficulty[chosen] = 0.5 * state.difficulty[chosen] + 0.5 * error
    move_averages(state.ema, state.network, experiment.ema, state.step)
    state.loss = loss if math.isnan(state.loss) else 0.98 * state.loss + 0.02 * loss
    state.step += 1


def descend(
    network: CandidateClassifier,
    optimizer: torch.optim.Optimizer,
    images: NDArray[np.float32],
    target: NDArray[np.float32],
    what: str = "The loss",
    precision: Literal["fp32", "bf16"] = "fp32",
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
    precision : {"fp32", "bf16"}
        Arithmetic.

    Returns
    -------
    logits : Tensor, shape (n,)
        Before the step, without a gradient, where the network is.
    loss : float
        Mean cross-entropy.

    Raises
    ------
    TrainingError
        If the loss is not a number; nothing is changed then.
    """
    device = next(network.parameters()).device
    shown = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = network(shown)
    loss = F.binary_cross_entropy_with_logits(logits.float(), torch.from_numpy(target).to(device))
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
    network = averaged(experiment.width, _on_cpu(state.ema)).to(next(state.network.parameters()).device)
    found = by_patient(logits_of(network, inputs), val)
    mean = np.mean(list(found.values())) if found else math.nan
    return f"  average precision {mean:.3f}: {', '.join(f'{k} {v:.3f}' for k, v in found.items())}"


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.cpu() for k, v in weights.items()}


def _save(folder: Path, experiment: ClassifierExperiment, state: _State, clock: Clock) -> None:
    optimizer, rest = flatten_optimizer("optimizer", state.optimizer)
    tensors = (
        module_tensors("network", state.network) | optimizer | {f"ema.{k}": v for k, v in state.ema.items()}
    )
    tensors |= {"difficulty": torch.from_numpy(state.difficulty), "weights": torch.from_numpy(state.weights)}
    told = {
        "experiment": experiment.model_dump(mode="json"), "step": state.step, "loss": state.loss, "optimizer": rest,
        "seconds": clock.spent_s,
    }  # fmt: skip
    save_checkpoint(folder, tensors, told)
    save_weights(folder, _on_cpu(state.ema))


def _resume(folder: Path, experiment: ClassifierExperiment, state: _State, clock: Clock) -> None:
    loaded = load_checkpoint(folder)
    if loaded is None:
        return
    tensors, rest = loaded
    if ClassifierExperiment.model_validate(rest["experiment"]) != experiment or len(
        tensors["difficulty"]
    ) != len(state.difficulty):
        raise TrainingError(
            f"{folder} holds a run with other settings or candidates. Choose another folder, or remove it."
        )
    state.network.load_state_dict(part_of("network", tensors))
    restore_optimizer("optimizer", state.optimizer, tensors, rest["optimizer"])
    state.ema = {k: v.to(state.ema[k].device) for k, v in part_of("ema", tensors).items()}
    state.difficulty, state.weights = (tensors[k].numpy().copy() for k in ("difficulty", "weights"))
    state.step, state.loss = rest["step"], rest["loss"]
    clock.before_s = rest.get("seconds", 0.0)  # earlier versions did not note it
    log.info("Going on from step %d of %s.", state.step, folder)
