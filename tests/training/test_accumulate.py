"""Gradients of several batches make one step, of the network and of its discriminators."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from minugan_training.fitting.fit import fit
from minugan_training.fitting.state import TrainingState, start
from minugan_training.fitting.step import train_step
from minugan_training.sampling.sampler import Batch, Sampler
from minugan_training.settings import Experiment

from tests.training.test_data import pool
from tests.training.test_fit import settings

pytestmark = pytest.mark.slow  # each test trains networks

CPU = torch.device("cpu")


class Exact:
    """Gives the batches of a sampler in double precision."""

    def __init__(self, whole: Sampler) -> None:
        self._whole = whole

    def batch(self, step: int, part: int = 0) -> Batch:
        images, labels, offsets = self._whole.batch(step)
        return Batch(images.astype(np.float64), labels, offsets)


class Halves(Exact):
    """Gives the first and the second patch of each step's batch as batches of their own."""

    def batch(self, step: int, part: int = 0) -> Batch:
        return Batch(*(a[part : part + 1] for a in super().batch(step)))


def exact(experiment: Experiment) -> TrainingState:
    """Return a state in double precision, whose optimisers take gradients as they are; Adam blows up errors of those near zero."""
    state = start(experiment, CPU)
    network, discriminator = state.network.double(), state.discriminator.double()
    optimizers = (torch.optim.SGD(n.parameters()) for n in (network, discriminator))
    return replace(state, optimizer=next(optimizers), discriminator_optimizer=next(optimizers))


def test_two_batches_of_one_train_both_networks_as_one_batch_of_two(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    source = {"datasets": ("rgb",), "at": "mitoses", "per_batch": 2}
    one = settings("adversarial", sources=(source,), learning_rate=0.01)
    two = one.model_copy(update={"accumulate": 2})
    whole, halves, sampler = exact(one), exact(two), Sampler(pool(tmp_path), one)
    first = [p.detach().clone() for n in (whole.network, whole.discriminator) for p in n.parameters()]
    for _ in range(3):
        losses = train_step(one, Exact(sampler), whole, CPU)
        assert train_step(two, Halves(sampler), halves, CPU) == pytest.approx(losses)
    together, apart = ([*s.network.parameters(), *s.discriminator.parameters()] for s in (whole, halves))
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(together, apart, strict=True))
    assert max(float((a - b).detach().abs().max()) for a, b in zip(together, first, strict=True)) > 1e-3


def test_the_gradient_of_a_batch_of_one_is_that_of_the_function(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = exact(settings("adversarial")).network
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weight = network.front[1].weight
    direction = torch.randn_like(weight)

    def value() -> torch.Tensor:
        return (network(image) ** 2).sum()

    value().backward()
    with torch.no_grad():
        weight += 1e-7 * direction
        above = value()
        weight -= 2e-7 * direction
        slope = float(above - value()) / 2e-7
    assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_network_steps_once_a_step(accumulate: int, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    s = settings("adversarial", accumulate=accumulate, norm="batch")
    state, sampler = start(s, CPU), Sampler(pool(tmp_path), s)
    for _ in range(2):
        train_step(s, sampler, state, CPU)
    for optimizer in (state.optimizer, state.discriminator_optimizer):
        assert {int(v["step"]) for v in optimizer.state_dict()["state"].values()} == {2}
    seen = [v for k, v in state.network.state_dict().items() if k.endswith("num_batches_tracked")]
    assert {int(v) for v in seen} == {2 * accumulate}


def test_batches_that_are_looked_at_twice_count_once_in_the_statistics(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    s = settings("supervised", accumulate=2, steps=1, learning_rate=1e-12)
    alone = fit(s, p, tmp_path / "alone")
    more = s.losses.model_copy(update={"adversarial": 1.0})
    judged = fit(s.model_copy(update={"losses": more}), p, tmp_path / "judged")
    statistics = [k for k in alone if "running" in k]
    assert statistics
    assert all(torch.equal(alone[k], judged[k]) for k in statistics)
