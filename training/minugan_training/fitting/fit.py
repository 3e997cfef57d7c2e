"""Training: seeded, resumable to the step, with checkpoints, moving averages and a live metrics.jsonl."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from minugan_training.clock import Clock
from minugan_training.fitting.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    module_tensors,
    part_of,
    read_weights,
    restore_optimizer,
    save_checkpoint,
    save_weights,
)
from minugan_training.fitting.distributed import join, local_device, wait_for_all
from minugan_training.fitting.faults import all_finite, memory_errors, not_finite
from minugan_training.fitting.metrics_log import add_row, mend
from minugan_training.fitting.mining import mine
from minugan_training.fitting.state import TrainingState, build_network, start, weights_to_use
from minugan_training.fitting.step import learning_rate, train_step
from minugan_training.sampling.ahead import BatchesAhead
from minugan_training.sampling.pool import Place, Pool, dark_places
from minugan_training.sampling.sampler import Sampler
from minugan_training.settings import Experiment
from wsi_minugan.errors import TrainingError

log = logging.getLogger(__name__)

BEST = "best.safetensors"
Progress = Callable[[int, float, float], None]
"""Called with step, loss, and seconds left."""


def fit(
    experiment: Experiment,
    pool: Pool,
    folder: Path,
    progress: Progress | None = None,
    until_step: int | None = None,
    device: str = "cpu",
    minutes: float | None = None,
    workers: int = 0,
) -> dict[str, Tensor]:
    """Train, from the folder's checkpoint if there is one, and return the weights to use (moving averages, if any).

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    folder : Path
        Gets ``checkpoint.safetensors``, ``best.safetensors`` (with a validation), ``weights.safetensors`` and ``metrics.jsonl``.
        A run there that has ended, also early, is not trained on.
    progress : callable, optional
        Told of every logged step.
    until_step : int, optional
        Stop here, as a kill would; for tests.
    device : {"cpu", "cuda", "auto"}
        Where to train; a validation runs on the CPU.
    minutes : float, optional
        End after so many minutes of this call, with a checkpoint; the learning rate falls by the clock, too.
    workers : int
        Processes that make batches ahead of the steps; 0: this process makes them. The batches are the same.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    TrainingError
        If a loss, a gradient or the weights are not numbers, or memory runs out; the last good checkpoint stays.
    DataError
        If an image cannot be read, or there is nothing to train or to validate on.
    DeviceError
        If the device is not there.
    """
    with memory_errors():
        return _fit(experiment, pool, folder, progress, until_step, device, Clock(minutes), workers)


def _fit(
    experiment: Experiment,
    pool: Pool,
    folder: Path,
    progress: Progress | None,
    until_step: int | None,
    device_name: str,
    clock: Clock,
    workers: int,
) -> dict[str, Tensor]:
    make_folder(folder)
    device = torch.device(local_device(device_name))
    rank, world = join(device.type)
    state = start(experiment, device)
    state.rank, state.world = rank, world
    sampler = Sampler(pool, experiment)
    judged_on = _judged_on(experiment, pool)
    data = _data_of(experiment, pool)
    _resume(folder, experiment, state, sampler, data)
    clock.before_s = state.seconds
    end = min(experiment.steps, until_step or experiment.steps)
    batches = BatchesAhead(sampler, workers, experiment.accumulate, rank) if workers else sampler
    _to_training(state.network, experiment)
    at_end = state.step >= end or _goes_on_in_vain(experiment, state)
    while not at_end:
        begun = time.perf_counter()
        _mine_if_due(experiment, pool, sampler, state, device)
        state.share_of_time = clock.share
        losses = train_step(experiment, batches, state, device)
        _validate(experiment, folder, state, pool, judged_on)
        state.seconds += time.perf_counter() - begun
        at_end = state.step == end or clock.over or _goes_on_in_vain(experiment, state)
        if state.rank == 0:
            _note(experiment, folder, state, losses, progress, at_end)
            if state.step % experiment.checkpoint_every == 0 or at_end:
                _save(folder, experiment, state, sampler, data)
    wait_for_all(state.world, device)  # the first process may still be writing its best weights
    weights = _best_weights(folder, state)
    if state.rank == 0:
        save_weights(folder, weights)
    return weights


def make_folder(folder: Path) -> None:
    """Make a run's folder, if it is not there.

    Parameters
    ----------
    folder : Path
        The run's folder.

    Raises
    ------
    TrainingError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise TrainingError(f"The run's folder {folder} cannot be made: {e}. Choose another.") from e


def _judged_on(experiment: Experiment, pool: Pool) -> list[Place]:
    if experiment.validation is None:
        return []
    # Here, because a machine that trains from a pack has no SciPy, and a pack has nothing to validate on.
    from minugan_training.fitting.validation import validation_places

    return validation_places(experiment, pool)


def _to_training(network: nn.Module, experiment: Experiment) -> None:
    network.train()
    for module in network.modules():
        if experiment.fixed_norms and isinstance(module, nn.BatchNorm2d):
            module.eval()


def _validate(
    experiment: Experiment, folder: Path, state: TrainingState, pool: Pool, places: Sequence[Place]
) -> None:
    """Keep the best weights so far."""
    wanted = experiment.validation
    if wanted is None or state.step % wanted.every_steps:
        return
    from minugan_training.fitting.validation import validation_figure

    weights = weights_to_use(state)
    value = validation_figure(experiment, wanted, build_network(experiment), weights, pool, places)
    state.running["validation"] = value
    if value > state.best:
        state.best, state.best_step = value, state.step
        if state.rank == 0:
            _refuse_broken(weights, state)
            save_weights(folder, weights, BEST)


def _goes_on_in_vain(experiment: Experiment, state: TrainingState) -> bool:
    """Return whether no validation has been better for as long as the settings allow; so also of a run that stopped for it."""
    wanted = experiment.validation
    return wanted is not None and state.step - state.best_step >= wanted.patience * wanted.every_steps


def _best_weights(folder: Path, state: TrainingState) -> dict[str, Tensor]:
    return read_weights(folder / BEST) if state.best_step else weights_to_use(state)


def _refuse_broken(tensors: Mapping[str, Tensor], state: TrainingState) -> None:
    if not all_finite(tensors.values()):
        raise not_finite(f"The weights after step {state.step} are not numbers.")


def _data_of(experiment: Experiment, pool: Pool) -> str:
    """Return a digest of the images that are drawn from, and of what is known of them."""
    entries = [pool.entries[k].model_dump(mode="json") for s in experiment.sources for k in pool.of(s)]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _resume(folder: Path, experiment: Experiment, state: TrainingState, sampler: Sampler, data: str) -> None:
    if state.rank == 0:
        mend(folder)
    loaded = load_checkpoint(folder)
    if loaded is None:
        return
    tensors, rest = loaded
    if not _same(rest["experiment"], experiment):
        raise TrainingError(f"{folder} holds a run with other settings. Choose another folder, or remove it.")
    if rest.get("data", data) != data:  # earlier versions did not note it
        raise TrainingError(
            f"{folder} holds a run on other data than the index has now. Choose another folder, or remove it; "
            "a new run can start from its weights with --start-from."
        )
    state.network.load_state_dict(part_of("network", tensors))
    restore_optimizer("optimizer", state.optimizer, tensors, rest["optimizer"])
    if state.discriminator is not None and state.discriminator_optimizer is not None:
        state.discriminator.load_state_dict(part_of("discriminator", tensors))
        restore_optimizer(
            "discriminator_optimizer", state.discriminator_optimizer, tensors, rest["discriminator_optimizer"]
        )
    state.ema = {k: v.to(state.ema[k].device) for k, v in part_of("ema", tensors).items()}
    state.step, state.seconds, state.running = rest["step"], rest["seconds"], rest["running"]
    state.noted = state.step, state.seconds
    state.best, state.best_step = rest["best"] if rest["best_step"] else -math.inf, rest["best_step"]
    sampler.hard = [(int(k), float(x), float(y)) for k, x, y in rest["hard"]]
    log.info("Going on from step %d of %s.", state.step, folder)


def _same(saved: Mapping[str, Any], experiment: Experiment) -> bool:
    """Return whether a run's settings are an experiment's; what its version did not have yet is as it is by default."""
    try:
        return Experiment.model_validate(saved) == experiment
    except ValidationError:
        return False


def _save(folder: Path, experiment: Experiment, state: TrainingState, sampler: Sampler, data: str) -> None:
    optimizer, optimizer_rest = flatten_optimizer("optimizer", state.optimizer)
    tensors = (
        module_tensors("network", state.network) | optimizer | {f"ema.{k}": v for k, v in state.ema.items()}
    )
    rest: dict[str, Any] = {
        "experiment": experiment.model_dump(mode="json"),
        "data": data,
        "step": state.step,
        "seconds": state.seconds,
        "running": state.running,
        "best": state.best if state.best_step else 0.0,
        "best_step": state.best_step,
        "hard": sampler.hard,
        "optimizer": optimizer_rest,
    }
    if state.discriminator is not None and state.discriminator_optimizer is not None:
        discriminator, rest["discriminator_optimizer"] = flatten_optimizer(
            "discriminator_optimizer", state.discriminator_optimizer
        )
        tensors |= module_tensors("discriminator", state.discriminator) | discriminator
    _refuse_broken(tensors, state)
    save_checkpoint(folder, tensors, rest)
    save_weights(folder, weights_to_use(state))


def _mine_if_due(
    experiment: Experiment, pool: Pool, sampler: Sampler, state: TrainingState, device: torch.device
) -> None:
    """Renew the hard negatives at steps that depend on the settings alone."""
    if experiment.mining is None:
        return
    sources = [s for s in experiment.sources if s.at == "hard"]
    if state.step == 0 or not sampler.hard:
        sampler.hard = [p for s in sources for p in dark_places(pool, s, experiment.mining.dark_per_image)]
    elif state.step % experiment.mining.every_steps == 0:
        weights = weights_to_use(state)
        found = [p for s in sources for p in mine(experiment, pool, s, weights, state.step, device)]
        log.info("Step %d: %d places look like mitoses and are none.", state.step, len(found))
        # New ones count more; older ones stay, so that they are not unlearnt.
        sampler.hard = found * 2 + sampler.hard[: max(800, len(found))]


def _note(
    experiment: Experiment,
    folder: Path,
    state: TrainingState,
    losses: dict[str, float],
    progress: Progress | None,
    at_end: bool,
) -> None:
    for name, value in losses.items():
        before = state.running.get(name, value)
        state.running[name] = 0.98 * before + 0.02 * value
    if state.step % experiment.log_every and not at_end:
        return
    row = {
        "step": state.step,
        "seconds": round(state.seconds, 1),
        "rate": learning_rate(experiment, state.step, state.share_of_time),
    }
    add_row(folder, row | {k: round(v, 5) for k, v in state.running.items()})
    # By the latest steps: the first ones also read images, and may label their nuclei.
    step_s = (state.seconds - state.noted[1]) / (state.step - state.noted[0])
    state.noted = state.step, state.seconds
    if progress is not None:
        progress(state.step, state.running["loss"], step_s * (experiment.steps - state.step))
