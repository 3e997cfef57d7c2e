"""Training on a GPU: what only one can show, and what a machine without one can."""

from pathlib import Path

import pytest
import torch
from minugan_training.fitting import faults
from minugan_training.fitting.fit import _data_of, _resume, fit
from minugan_training.fitting.metrics_log import read_metrics
from minugan_training.fitting.state import start
from minugan_training.sampling.sampler import Sampler

from tests.training.test_data import pool
from tests.training.test_fit import settings


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["supervised", "adversarial", "accumulating", "u-net"])
def test_a_killed_run_on_a_gpu_goes_on(kind: str, tmp_path: Path) -> None:
    p = pool(tmp_path)
    s = settings(kind, ema=0.9, precision="bf16", clip_norm=5.0, mining={"every_steps": 4})
    fit(s, p, tmp_path / "a", until_step=3, device="cuda")
    weights = fit(s, p, tmp_path / "a", device="cuda")
    assert all(v.device.type == "cpu" and v.isfinite().all() for v in weights.values())
    assert [r["step"] for r in read_metrics(tmp_path / "a")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.filterwarnings("ignore:for .* meta parameter")
def test_a_checkpoint_goes_on_where_the_network_is(tmp_path: Path) -> None:
    p, s = pool(tmp_path), settings("supervised", ema=0.9)
    fit(s, p, tmp_path / "a", until_step=2)
    state = start(s, torch.device("meta"))
    _resume(tmp_path / "a", s, state, Sampler(p, s), _data_of(s, p))
    assert state.step == 2
    assert {v.device.type for v in state.ema.values()} == {"meta"}


def test_numbers_are_looked_at_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def stacked(norms: list[torch.Tensor]) -> torch.Tensor:
        seen.append({n.device.type for n in norms})
        return torch.ones(1)

    monkeypatch.setattr(faults.torch, "stack", stacked)
    assert faults.all_finite([torch.ones(2), torch.ones(2, device="meta"), torch.ones(())])
    assert seen == [{"cpu"}, {"meta"}]
