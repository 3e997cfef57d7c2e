"""How many threads a training uses."""

from __future__ import annotations

import cv2
import torch

from wsi_minugan.minugan.devices import choose_device


def settle_threads(device: str) -> None:
    """Give OpenCV one thread, and torch one on a CPU, of which several processes make better use.

    Several OpenCV pools on one machine wait for each other, and ``OMP_NUM_THREADS`` does not reach them. Beside a GPU torch keeps what it
    takes by itself.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where the network is trained.

    Raises
    ------
    DeviceError
        If CUDA is asked for and missing.
    """
    cv2.setNumThreads(1)
    if choose_device(device) == "cpu":
        torch.set_num_threads(1)
