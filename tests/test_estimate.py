"""The time that a dry run tells is that of the model on this machine."""

import numpy as np
import pytest

from wsi_minugan.config import RunSettings
from wsi_minugan.minugan import predictor
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.pipeline.estimate import AUGMENTED_PASSES, BEYOND_FORWARD_S, seconds_per_patch


def test_the_expected_time_is_that_of_one_batch_after_one_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = [], iter([10.0, 10.8])

    class Slow:
        def __init__(self, bundle: object, device: str, precision: str, batch: int, threads: int) -> None:
            calls.append((device, batch, threads))

        def predict(self, patches: np.ndarray) -> None:
            calls.append(patches.shape)

    monkeypatch.setattr(predictor, "Predictor", Slow)
    monkeypatch.setattr("wsi_minugan.pipeline.estimate.time.perf_counter", lambda: next(clock))
    settings = RunSettings(batch_size=64, threads=2)
    bundle = load_bundle(find_bundle("default"))
    found = seconds_per_patch(bundle, settings, "cpu")
    assert calls == [("cpu", 8, 2), (8, 256, 256, 3), (8, 256, 256, 3)]
    looks = 1 + AUGMENTED_PASSES if bundle.card.test_time_augmentation else 1
    assert found == pytest.approx(0.1 * looks + BEYOND_FORWARD_S)
