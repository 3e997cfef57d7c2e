"""Training: seeded, resumable to the step, with checkpoints, moving averages and a live metrics.jsonl."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minugan_training.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    module_tensors,
    part_of,
    restore_optimizer,
    save_checkpoint,
)
from minugan_training.losses import (
    consistency_loss,
    feature_matching_loss,
    focal_discriminator_loss,
    focal_generator_loss,
    label_images,
    supervised_loss,
)
from minugan_training.mining import mine
from minugan_training.parallel import join, local_device, share_buffers, share_gradients
from minugan_training.sampling import Pool, Sampler, dark_places
from minugan_training.settings import Experiment
from minugan_training.state import TrainingState, average, build_network, start, weights_to_use
from minugan_training.validation import validation_figure
from wsi_minugan.errors import TrainingError

log = logging.getLogger(__name__)

BEST = "best.safetensors"
_LEAST_RATE = 1e-3
Progress = Callable[[int, float, float], None]
"""Called with step, loss, and seconds left."""


def fit(
    experiment: Experiment,
    pool: Pool,
    folder: Path,
    progress: Progress | None = None,
    until_step: int | None = None,
    device: str = "cpu",
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
    progress : callable, optional
        Told of every logged step.
    until_step : int, optional
        Stop here, as a kill would; for tests.
    device : str
        Where to train.

    Raises
    ------
    TrainingError
        If the loss is not a number or memory runs out; the last good checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rank, world = join(device)
    device = local_device(device)
    state = start(experiment, torch.device(device))
    state.rank, state.world = rank, world
    sampler = Sampler(pool, experiment)
    _resume(folder, experiment, state, sampler)
    end = min(experiment.steps, until_step or experiment.steps)
    _to_training(state.network, experiment)
    while state.step < end:
        begun = time.perf_counter()
        _mine_if_due(experiment, pool, sampler, state)
        try:
            losses = _step(experiment, sampler, state, torch.device(device))
        except torch.OutOfMemoryError as e:
            raise TrainingError(
                "Memory ran out. Use a smaller batch with 'accumulate', or a smaller ngf."
            ) from e
        state.seconds += time.perf_counter() - begun
        over = _validate(experiment, folder, state, pool)
        if state.rank == 0:
            _note(experiment, folder, state, losses, progress)
            if state.step % experiment.checkpoint_every == 0 or state.step == end or over:
                _save(folder, experiment, state, sampler)
        if over:
            break
    weights = _best_weights(folder, state)
    if state.rank == 0:
        save_weights(folder, weights)
    return weights


def _to_training(network: nn.Module, experiment: Experiment) -> None:
    network.train()
    for module in network.modules():
        if experiment.fixed_norms and isinstance(module, nn.BatchNorm2d):
            module.eval()


def _validate(experiment: Experiment, folder: Path, state: TrainingState, pool: Pool) -> bool:
    """Keep the best weights so far, and return whether training has gone on too long without better ones."""
    wanted = experiment.validation
    if wanted is None or state.step % wanted.every_steps:
        return False
    weights = weights_to_use(state)
    value = validation_figure(experiment, wanted, build_network(experiment), weights, pool)
    state.running["validation"] = value
    if value > state.best:
        state.best, state.best_step = value, state.step
        if state.rank == 0:
            save_weights(folder, weights, BEST)
    return state.step - state.best_step >= wanted.patience * wanted.every_steps


def _best_weights(folder: Path, state: TrainingState) -> dict[str, Tensor]:
    if state.best_step == 0:
        return weights_to_use(state)
    from safetensors.torch import load_file

    best: dict[str, Tensor] = load_file(folder / BEST)
    return best


def save_weights(folder: Path, weights: dict[str, Tensor], name: str = "weights.safetensors") -> None:
    """Write weights."""
    from safetensors.torch import save_file

    from wsi_minugan.outputs.atomic import atomic_path

    with atomic_path(folder / name) as temporary:
        save_file({k: v.contiguous() for k, v in weights.items()}, temporary)


def _resume(folder: Path, experiment: Experiment, state: TrainingState, sampler: Sampler) -> None:
    loaded = load_checkpoint(folder)
    if loaded is None:
        return
    tensors, rest = loaded
    if rest["experiment"] != experiment.model_dump(mode="json"):
        raise TrainingError(f"{folder} holds a run with other settings. Choose another folder, or remove it.")
    state.network.load_state_dict(part_of("network", tensors))
    restore_optimizer("optimizer", state.optimizer, tensors, rest["optimizer"])
    if state.judge is not None and state.judge_optimizer is not None:
        state.judge.load_state_dict(part_of("judge", tensors))
        restore_optimizer("judge_optimizer", state.judge_optimizer, tensors, rest["judge_optimizer"])
    state.ema = part_of("ema", tensors)
    state.step, state.seconds, state.running = rest["step"], rest["seconds"], rest["running"]
    state.best, state.best_step = rest["best"] if rest["best_step"] else -math.inf, rest["best_step"]
    sampler.hard = [(int(k), float(x), float(y)) for k, x, y in rest["hard"]]
    log.info("Going on from step %d of %s.", state.step, folder)


def _save(folder: Path, experiment: Experiment, state: TrainingState, sampler: Sampler) -> None:
    optimizer, optimizer_rest = flatten_optimizer("optimizer", state.optimizer)
    tensors = (
        module_tensors("network", state.network) | optimizer | {f"ema.{k}": v for k, v in state.ema.items()}
    )
    rest: dict[str, Any] = {
        "experiment": experiment.model_dump(mode="json"),
        "step": state.step,
        "seconds": state.seconds,
        "running": state.running,
        "best": state.best if state.best_step else 0.0,
        "best_step": state.best_step,
        "hard": sampler.hard,
        "optimizer": optimizer_rest,
    }
    if state.judge is not None and state.judge_optimizer is not None:
        judge, rest["judge_optimizer"] = flatten_optimizer("judge_optimizer", state.judge_optimizer)
        tensors |= module_tensors("judge", state.judge) | judge
    save_checkpoint(folder, tensors, rest)
    save_weights(folder, weights_to_use(state))


def learning_rate(experiment: Experiment, step: int) -> float:
    """Return the learning rate of a step: warm-up, then constant, constant and linear to zero, or cosine."""
    warm = min(1.0, (step + 1) / experiment.warmup_steps) if experiment.warmup_steps else 1.0
    done = step / experiment.steps
    factor = 1.0
    if experiment.schedule == "linear":
        factor = min(1.0, 2 * (1 - done))
    elif experiment.schedule == "cosine":
        factor = 0.5 + 0.5 * math.cos(math.pi * done)
    return experiment.learning_rate * warm * max(_LEAST_RATE, factor)


def _step(
    experiment: Experiment, sampler: Sampler, state: TrainingState, device: torch.device
) -> dict[str, float]:
    rate = learning_rate(experiment, state.step)
    for optimizer in (state.optimizer, state.judge_optimizer):
        for group in optimizer.param_groups if optimizer is not None else ():
            group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    parts: list[dict[str, Tensor]] = []
    for part in range(experiment.accumulate):
        drawn = sampler.batch(state.step, state.rank * experiment.accumulate + part)
        images, labels, offsets = (torch.from_numpy(a).to(device) for a in drawn)
        images = images.contiguous(memory_format=torch.channels_last)
        parts.append(_backward(experiment, state, images, labels, offsets))
    share_gradients(state.network, state.world)
    share_buffers(state.network, state.world)
    if experiment.clip_norm:
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), experiment.clip_norm)
    losses = {k: sum(float(p[k]) for p in parts) / len(parts) for k in parts[0]}
    if not all(math.isfinite(v) for v in losses.values()):
        raise TrainingError(
            f"The loss of step {state.step} is not a number. Lower the learning rate; the last checkpoint is kept."
        )
    state.optimizer.step()
    state.step += 1
    average(experiment, state)
    return losses


def _backward(
    experiment: Experiment, state: TrainingState, images: Tensor, labels: Tensor, offsets_px: Tensor
) -> dict[str, Tensor]:
    weights = experiment.losses
    with torch.autocast(images.device.type, torch.bfloat16, enabled=experiment.precision == "bf16"):
        logits = state.network.logits(images)  # type: ignore[operator]
    logits = logits.float()
    total = logits.new_zeros(())
    out: dict[str, Tensor] = {}
    if weights.supervised:
        out["supervised"] = supervised_loss(logits, labels, weights)
        total = total + weights.supervised * out["supervised"]
    if experiment.consistency is not None:
        out["consistency"] = consistency_loss(logits, offsets_px)
        total = total + experiment.consistency.weight * out["consistency"]
    if state.judge is not None and state.judge_optimizer is not None:
        adversarial, judged = _adversarial(
            experiment, state, state.judge, state.judge_optimizer, images, logits, labels
        )
        total = total + adversarial
        out["judge"] = judged
        out["adversarial"] = adversarial.detach()
    (total / experiment.accumulate).backward()
    return {"loss": total.detach()} | {k: v.detach() for k, v in out.items()}


def _adversarial(
    experiment: Experiment,
    state: TrainingState,
    judge: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    logits: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Train the discriminators on this batch, and return the generator's adversarial loss and theirs."""
    weights = experiment.losses
    fake = torch.tanh(logits)
    real = label_images(labels, fake)
    optimizer.zero_grad(set_to_none=True)
    on_real, on_fake = judge(images, real), judge(images, fake.detach())
    judged = focal_discriminator_loss([s[-1] for s in on_real], [s[-1] for s in on_fake], weights.gamma)
    judged.backward()  # type: ignore[no-untyped-call]
    share_gradients(judge, state.world)
    optimizer.step()
    judge.requires_grad_(False)
    again, reference = judge(images, fake), judge(images, real)
    judge.requires_grad_(True)
    adversarial = focal_generator_loss([s[-1] for s in again], weights.gamma)
    matching = feature_matching_loss([s[:-1] for s in reference], [s[:-1] for s in again])
    return weights.adversarial * (adversarial + weights.feature_matching * matching), judged


def _mine_if_due(experiment: Experiment, pool: Pool, sampler: Sampler, state: TrainingState) -> None:
    """Renew the hard negatives at steps that depend on the settings alone."""
    if experiment.mining is None:
        return
    sources = [s for s in experiment.sources if s.at == "hard"]
    if state.step == 0 or not sampler.hard:
        sampler.hard = [p for s in sources for p in dark_places(pool, s, experiment.mining.dark_per_image)]
    elif state.step % experiment.mining.every_steps == 0:
        found = [p for s in sources for p in mine(experiment, pool, s, weights_to_use(state), state.step)]
        log.info("Step %d: %d places look like mitoses and are none.", state.step, len(found))
        # New ones count more; older ones stay, so that they are not unlearnt.
        sampler.hard = found * 2 + sampler.hard[: max(800, len(found))]


def _note(
    experiment: Experiment,
    folder: Path,
    state: TrainingState,
    losses: dict[str, float],
    progress: Progress | None,
) -> None:
    for name, value in losses.items():
        before = state.running.get(name, value)
        state.running[name] = 0.98 * before + 0.02 * value
    if state.step % experiment.log_every and state.step != experiment.steps:
        return
    row = {
        "step": state.step,
        "seconds": round(state.seconds, 1),
        "rate": learning_rate(experiment, state.step),
    }
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(row | {k: round(v, 5) for k, v in state.running.items()}) + "\n")
    if progress is not None:
        left_s = state.seconds / state.step * (experiment.steps - state.step)
        progress(state.step, state.running["loss"], left_s)


def read_metrics(folder: Path) -> Sequence[dict[str, float]]:
    """Return the rows of metrics.jsonl; of a step logged twice (a resumed run), the last."""
    rows: dict[int, dict[str, float]] = {}
    path = folder / "metrics.jsonl"
    if path.is_file():
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            rows[int(row["step"])] = row
    return [rows[k] for k in sorted(rows)]
