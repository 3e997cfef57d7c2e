"""The state of a training run: networks, optimisers, moving averages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from minugan_training.fitting.checkpoint import load_weights, read_weights
from minugan_training.fitting.faults import all_finite
from minugan_training.fitting.unet import UNet
from minugan_training.settings import Experiment
from wsi_minugan.errors import TrainingError
from wsi_minugan.minugan.discriminator import MultiscaleDiscriminator
from wsi_minugan.minugan.generator import Generator

_MOMENTUM = 0.05
_WIDEST = 64
"""Channels of the discriminators' first layer: pix2pixHD's number, whatever the generator's; fewer where that is very narrow."""


@dataclass
class TrainingState:
    """What training changes, step by step.

    Attributes
    ----------
    network : Module
        What is trained: a generator or a U-Net, on the training device.
    optimizer : Optimizer
        Of the network.
    discriminator : Module or None
        None where the experiment has no adversarial loss.
    discriminator_optimizer : Optimizer or None
        Of the discriminators.
    ema : dict of str to Tensor
        Moving averages of the network's parameters and buffers, fp32, by name; empty where the experiment keeps none.
    step : int
        Steps done.
    seconds : float
        Time that these took, over all sessions of the run, in s.
    running : dict of str to float
        Losses, smoothed over steps, and the last validation.
    best : float
        Highest figure of any validation.
    best_step : int
        The step of that validation.
    rank, world : int
        This process's number among those that train together, and how many these are.
    noted : tuple of (int, float)
        Step and seconds when the journal was last written.
    teacher : Module or None
        A trained network whose scores are learnt beside the labels; None without distillation.
    share_of_time : float
        How much of a training that ends by the clock has gone by, 0 to 1. The learning rate follows it.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: torch.optim.Optimizer | None
    ema: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    running: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    best_step: int = 0
    rank: int = 0
    world: int = 1
    noted: tuple[int, float] = (0, 0.0)
    teacher: nn.Module | None = None
    share_of_time: float = 0.0


def build_network(experiment: Experiment) -> nn.Module:
    """Return an untrained network of an experiment; seeded.

    Parameters
    ----------
    experiment : Experiment
        Settings.

    Returns
    -------
    Module
        A generator, or a U-Net.
    """
    torch.manual_seed(experiment.seed)
    if experiment.network == "unet":
        return UNet(2 * experiment.ngf)
    return Generator(experiment.ngf, experiment.norm, experiment.antialias)


def start(experiment: Experiment, device: torch.device) -> TrainingState:
    """Return the state before the first step.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    device : torch.device
        Where to train.

    Returns
    -------
    TrainingState
        Step 0.

    Raises
    ------
    TrainingError
        If the weights to start from, or the teacher's, are missing, cannot be read or do not fit, or there is no loss.
    """
    if not (experiment.losses.adversarial or experiment.losses.supervised or experiment.losses.spots):
        raise TrainingError(
            f"{experiment.name} learns nothing: set losses.supervised, losses.spots or losses.adversarial above 0."
        )
    if experiment.fixed_norms and not experiment.start_from:
        raise TrainingError(
            f"{experiment.name} keeps the statistics of other weights (fixed_norms): name these with --start-from."
        )
    network = build_network(experiment)
    if experiment.start_from:
        _load_start(network, experiment)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
    discriminator = (
        MultiscaleDiscriminator(experiment.losses.discriminators, min(_WIDEST, 8 * experiment.ngf)).to(device)
        if experiment.losses.adversarial
        else None
    )
    for trained in (network, discriminator):
        _straighten_gradients(trained)
    return TrainingState(
        network,
        optimizer_of(network, experiment),
        discriminator,
        optimizer_of(discriminator, experiment) if discriminator is not None else None,
        {k: v.detach().clone().float() for k, v in network.state_dict().items()} if experiment.ema else {},
        teacher=_teacher(experiment, device),
    )


def _teacher(experiment: Experiment, device: torch.device) -> nn.Module | None:
    """Return the network that an experiment learns from, if it has one; as wide as its weights say."""
    if experiment.distillation is None:
        return None
    path = experiment.distillation.teacher
    if not path:
        raise TrainingError(
            f"{experiment.name} learns from a teacher (distillation): name its weights with --teacher."
        )
    given = read_weights(Path(path))
    first, own = next(iter(build_network(experiment).state_dict().items()))
    try:
        ngf = given[first].shape[0] * experiment.ngf // own.shape[0]
        own_blur = experiment.distillation.antialias
        blur = experiment.antialias if own_blur is None else own_blur
        teacher = build_network(experiment.model_copy(update={"ngf": ngf, "antialias": blur}))
        load_weights(teacher, given)
    except (KeyError, IndexError, RuntimeError) as e:
        raise TrainingError(
            f"The teacher's weights {path} are of another kind of network than that of {experiment.name} "
            f"({experiment.network}, norm {experiment.norm}). Give weights of the same kind; only the width may differ."
        ) from e
    if not all_finite(given.values()):
        raise TrainingError(f"The teacher's weights {path} are not all numbers. Give others.")
    teacher.eval().requires_grad_(False)
    return teacher.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _load_start(network: nn.Module, experiment: Experiment) -> None:
    """Load the weights to start from; what a norm would keep may be missing, as in those of a network with other norms."""
    given = read_weights(Path(experiment.start_from))
    of_norms = {
        f"{n}.{k}"
        for n, m in network.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for k in m.state_dict()
    }
    own = network.state_dict()
    missing = own.keys() - given.keys() - of_norms
    others = [k for k, v in given.items() if k in own and v.shape != own[k].shape]
    if missing or others:
        raise TrainingError(
            f"The weights {experiment.start_from} are of another network than that of {experiment.name} "
            f"({experiment.network}, ngf {experiment.ngf}): {len(missing)} layers are missing, {len(others)} have another "
            "shape. Start from weights of the same network and ngf."
        )
    if not all_finite(v for k, v in given.items() if k in own):
        raise TrainingError(
            f"The weights {experiment.start_from} are not all numbers, and no training mends a norm's statistics. "
            "Start from other weights."
        )
    network.load_state_dict(given, strict=False)


def _straighten_gradients(network: nn.Module | None) -> None:
    """Lay out the gradients that reach instance norms as the norms' inputs are.

    Of a batch of one, torch (2.13, on CPUs) reads a gradient that is laid out channels last as if it were not, and what flows on is
    wrong; behind the last norm of each residual block it is.
    """
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.InstanceNorm2d):
            module.register_full_backward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, gradients: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
    return tuple(g.contiguous() for g in gradients)


def optimizer_of(module: nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    """Return the optimiser of a network or of its discriminators.

    Parameters
    ----------
    module : Module
        What is trained.
    experiment : Experiment
        Settings.

    Returns
    -------
    Optimizer
        AdamW.
    """
    return torch.optim.AdamW(
        module.parameters(), experiment.learning_rate, experiment.betas, weight_decay=experiment.weight_decay
    )


def weights_to_use(state: TrainingState) -> dict[str, Tensor]:
    """Return the weights that are saved: moving averages, if there are any.

    Parameters
    ----------
    state : TrainingState
        The training.

    Returns
    -------
    dict of str to Tensor
        Copies on the CPU.
    """
    found = state.ema or state.network.state_dict()
    return {k: v.detach().cpu().clone() for k, v in found.items()}


@torch.no_grad()
def average(experiment: Experiment, state: TrainingState) -> None:
    """Bring the moving averages of the weights up to date, in place.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    state : TrainingState
        It is changed.
    """
    if not experiment.ema:
        return
    move_averages(state.ema, state.network, experiment.ema, state.step)


@torch.no_grad()
def move_averages(averages: dict[str, Tensor], network: nn.Module, ema: float, step: int) -> None:
    """Bring moving averages of a network's weights up to date, in place.

    Parameters
    ----------
    averages : dict of str to Tensor
        By the network's own names.
    network : Module
        As it is after the step.
    ema : float
        Share that an average keeps each step; less during the first ones.
    step : int
        How many steps were made.
    """
    keep = min(ema, (1 + step) / (10 + step))
    now = network.state_dict()
    moving = [k for k, v in now.items() if v.is_floating_point()]
    # Together: on a GPU, one by one would take as long as a small network's step.
    moved = [averages[k] for k in moving]
    torch._foreach_mul_(moved, keep)
    torch._foreach_add_(moved, [now[k].float() for k in moving], alpha=1 - keep)
    averages |= {k: v.clone().to(averages[k].dtype) for k, v in now.items() if not v.is_floating_point()}
