"""One step of training: the discriminators first, then the network that they train against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minugan_training.fitting.distributed import share_buffers, share_gradients
from minugan_training.fitting.faults import all_finite, not_finite
from minugan_training.fitting.losses import (
    consistency_loss,
    distillation_loss,
    feature_matching_loss,
    focal_discriminator_loss,
    focal_generator_loss,
    label_images,
    spots_loss,
    supervised_loss,
)
from minugan_training.fitting.state import TrainingState, average
from minugan_training.sampling.sampler import BatchSource
from minugan_training.settings import Experiment

_LEAST_RATE = 1e-3
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))
_LEAST_SCORE = 1e-4
"""Of a mean of scores, so that its logit is a number."""


class _Part(NamedTuple):
    """One of the batches whose gradients make a step."""

    images: Tensor
    labels: Tensor
    offsets_px: Tensor


def learning_rate(experiment: Experiment, step: int, share_of_time: float = 0.0) -> float:
    """Return the learning rate of a step: warm-up, then constant, constant and linear to zero, or cosine.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    step : int
        From 0 on.
    share_of_time : float
        Where a training ends by the clock, how much of its time has gone by, 0 to 1. The rate falls by the clock or by
        steps, whichever is further on.

    Returns
    -------
    float
        For the optimiser.
    """
    warm = min(1.0, (step + 1) / experiment.warmup_steps) if experiment.warmup_steps else 1.0
    done = max(step / experiment.steps, share_of_time)
    factor = 1.0
    if experiment.schedule == "linear":
        factor = min(1.0, 2 * (1 - done))
    elif experiment.schedule == "cosine":
        factor = 0.5 + 0.5 * math.cos(math.pi * done)
    return experiment.learning_rate * warm * max(_LEAST_RATE, factor)


def train_step(
    experiment: Experiment, sampler: BatchSource, state: TrainingState, device: torch.device
) -> dict[str, float]:
    """Train the discriminators, if there are any, and then the network, each by one step of its optimiser.

    With `accumulate`, the gradients of several batches add up to those steps: all batches train the discriminators, these step,
    and then all batches train the network against the discriminators as they are now; the same order as with one batch. So
    that never more than one batch's graph is in memory, the network then sees every batch twice, the first time without a graph.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    sampler : BatchSource
        Draws the batches.
    state : TrainingState
        What is trained, in place.
    device : torch.device
        Where it is.

    Returns
    -------
    dict of str to float
        The losses, averaged over the batches.

    Raises
    ------
    TrainingError
        If a loss or a gradient is not a number; the network has not stepped then.
    """
    _set_rates(experiment, state)
    parts = [_draw(experiment, sampler, state, k, device) for k in range(experiment.accumulate)]
    alone = _logits(experiment, state.network, parts[0]) if len(parts) == 1 else None
    discriminated = _train_discriminator(experiment, state, parts, alone)
    state.optimizer.zero_grad(set_to_none=True)
    rows = [_backward(experiment, state, part, alone) for part in parts]
    share_gradients(state.network, state.world)
    share_buffers(state.network, state.world)
    losses = {k: sum(float(r[k]) for r in rows) / len(rows) for k in rows[0]}
    if discriminated:
        losses["discriminator"] = sum(map(float, discriminated)) / len(discriminated)
    if not all(math.isfinite(v) for v in losses.values()):
        raise not_finite(f"The loss of step {state.step + 1} is not a number.")
    _apply(state, state.network, state.optimizer, experiment.clip_norm)
    state.step += 1
    average(experiment, state)
    return losses


def _set_rates(experiment: Experiment, state: TrainingState) -> None:
    rate = learning_rate(experiment, state.step, state.share_of_time)
    for optimizer in (state.optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups if optimizer is not None else ():
            group["lr"] = rate


def _draw(
    experiment: Experiment, sampler: BatchSource, state: TrainingState, part: int, device: torch.device
) -> _Part:
    drawn = sampler.batch(state.step, state.rank * experiment.accumulate + part)
    images, labels, offsets = (torch.from_numpy(a).to(device) for a in drawn)
    return _Part(images.contiguous(memory_format=torch.channels_last), labels, offsets)


def _logits(experiment: Experiment, network: nn.Module, part: _Part) -> Tensor:
    with torch.autocast(part.images.device.type, torch.bfloat16, enabled=experiment.precision == "bf16"):
        logits: Tensor = network.logits(part.images)  # type: ignore[operator]
    return logits.float() if logits.dtype == torch.bfloat16 else logits


def _train_discriminator(
    experiment: Experiment, state: TrainingState, parts: Sequence[_Part], alone: Tensor | None
) -> list[Tensor]:
    """Train the discriminators on all batches, and return their loss on each; `alone` are the logits of an only batch."""
    discriminator, optimizer = state.discriminator, state.discriminator_optimizer
    if discriminator is None or optimizer is None:
        return []
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for part in parts:
        logits = _looked_at(experiment, state.network, part) if alone is None else alone.detach()
        fake = torch.tanh(logits)
        on_real, on_fake = (
            discriminator(part.images, label_images(part.labels, fake)),
            discriminator(part.images, fake),
        )
        loss = focal_discriminator_loss(
            [s[-1] for s in on_real], [s[-1] for s in on_fake], experiment.losses.gamma
        )
        (loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    share_gradients(discriminator, state.world)
    _apply(state, discriminator, optimizer)
    return losses


@torch.no_grad()
def _looked_at(experiment: Experiment, network: nn.Module, part: _Part) -> Tensor:
    """Return the logits that the network will have in its own training, without a graph."""
    with _statistics_kept(network):
        return _logits(experiment, network, part)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let batch norms use a batch's statistics, in the block, without counting it: it counts when the network trains on it."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _backward(
    experiment: Experiment, state: TrainingState, part: _Part, alone: Tensor | None
) -> dict[str, Tensor]:
    """Add a batch's gradient to the network's, and return the losses."""
    weights = experiment.losses
    logits = _logits(experiment, state.network, part) if alone is None else alone
    total = logits.new_zeros(())
    out: dict[str, Tensor] = {}
    if weights.supervised:
        out["supervised"] = supervised_loss(logits, part.labels, weights)
        total = total + weights.supervised * out["supervised"]
    if weights.spots:
        out["spots"] = spots_loss(logits, part.labels)
        total = total + weights.spots * out["spots"]
    if experiment.consistency is not None:
        out["consistency"] = consistency_loss(logits, part.offsets_px)
        total = total + experiment.consistency.weight * out["consistency"]
    if experiment.distillation is not None and state.teacher is not None:
        taught = _taught(experiment, state.teacher, part, experiment.distillation.views)
        out["distillation"] = distillation_loss(logits, taught, experiment.distillation.temperature)
        total = total + experiment.distillation.weight * out["distillation"]
    if state.discriminator is not None:
        out["adversarial"] = _adversarial(experiment, state.discriminator, part, logits)
        total = total + out["adversarial"]
    (total / experiment.accumulate).backward()  # type: ignore[no-untyped-call]
    return {"loss": total.detach()} | {k: v.detach() for k, v in out.items()}


@torch.no_grad()
def _taught(experiment: Experiment, teacher: nn.Module, part: _Part, views: int) -> Tensor:
    """Return a teacher's logits of a batch; those of its mean scores, where it sees several views of each patch."""
    if views == 1:
        return _logits(experiment, teacher, part)
    total = torch.zeros_like(part.images, memory_format=torch.contiguous_format)
    for axes in _MIRRORED:
        seen = part._replace(images=part.images.flip(axes).contiguous(memory_format=torch.channels_last))
        total += torch.sigmoid(2 * _logits(experiment, teacher, seen)).flip(axes)
    return torch.logit(total / len(_MIRRORED), eps=_LEAST_SCORE) / 2


def _adversarial(experiment: Experiment, discriminator: nn.Module, part: _Part, logits: Tensor) -> Tensor:
    """Return the network's adversarial loss, with feature matching."""
    weights = experiment.losses
    fake = torch.tanh(logits)
    discriminator.requires_grad_(False)
    on_fake, on_real = (
        discriminator(part.images, fake),
        discriminator(part.images, label_images(part.labels, fake)),
    )
    discriminator.requires_grad_(True)
    adversarial = focal_generator_loss([s[-1] for s in on_fake], weights.gamma)
    matching = feature_matching_loss([s[:-1] for s in on_real], [s[:-1] for s in on_fake])
    return weights.adversarial * (adversarial + weights.feature_matching * matching)


def _apply(
    state: TrainingState, module: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float = 0.0
) -> None:
    """Step, if the gradients are numbers."""
    if not all_finite(p.grad for p in module.parameters() if p.grad is not None):
        raise not_finite(f"The gradient of step {state.step + 1} is not a number.")
    if clip_norm:
        torch.nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
    optimizer.step()
