"""How long a run will take, from one batch of its own model."""

from __future__ import annotations

import time

import numpy as np

from wsi_minugan.config import PATCH_PX, RunSettings
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.devices import choose_device

BEYOND_FORWARD_S = 0.004
"""What a patch takes besides the network: reading, blending, objects, masks (docs/performance.md)."""

AUGMENTED_PASSES = 0.26
"""Forward passes for test-time augmentation, for each patch: three for a twelfth of the patches (docs/performance.md)."""

_MOST_PATCHES = 8


def seconds_per_patch(bundle: Bundle, settings: RunSettings, device: str) -> float:
    """Return the seconds that one worker takes for a patch: one batch is measured, after another to warm up.

    Parameters
    ----------
    bundle : Bundle
        The model.
    settings : RunSettings
        Arithmetic, threads and size of a batch; on a CPU at most 8 patches are taken, so that it lasts a second.
    device : {"auto", "cpu", "cuda"}
        Where to measure.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    DeviceError
        If the device is not there.
    """
    from wsi_minugan.minugan.predictor import Predictor

    on_cpu = choose_device(device) == "cpu"
    batch = min(settings.batch_size, _MOST_PATCHES) if on_cpu else settings.batch_size
    # Not compiled: that takes a minute, and what it saves is small (docs/performance.md).
    predictor = Predictor(bundle, device, settings.precision, batch, settings.threads)
    patches = np.full((batch, PATCH_PX, PATCH_PX, 3), 200, np.uint8)
    predictor.predict(patches)
    start = time.perf_counter()
    predictor.predict(patches)
    looks = 1 + AUGMENTED_PASSES if bundle.card.test_time_augmentation else 1
    return looks * (time.perf_counter() - start) / batch + BEYOND_FORWARD_S
