"""Hard negatives: places that the model takes for mitoses, where it is known that there are none."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minugan_training.data.labels import MITOSES, Sample
from minugan_training.fitting.checkpoint import load_weights
from minugan_training.fitting.state import build_network
from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Experiment, Source

CPU = torch.device("cpu")
_WINDOW_PX = 512
_MULTIPLE_PX = 32
_NEAR_TRUTH = np.ones((17, 17), np.uint8)
_PEAK = np.ones((21, 21), np.uint8)


def mine(
    experiment: Experiment,
    pool: Pool,
    source: Source,
    weights: dict[str, Tensor],
    step: int,
    device: torch.device = CPU,
) -> list[Place]:
    """Return the model's false positives on a random share of a source's images.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    source : Source
        Where to look.
    weights : dict of str to Tensor
        The model.
    step : int
        Part of the seed.
    device : torch.device
        Where to look.

    Returns
    -------
    list of Place
        Entry, x and y.
    """
    mining = experiment.mining
    if mining is None:
        return []
    network = build_network(experiment)
    load_weights(network, weights)
    network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng([experiment.seed, step, 99])
    images = rng.permutation(pool.of(source))
    places: list[Place] = []
    for k in images[: max(1, int(len(images) * mining.share_of_images))].tolist():
        sample = pool.sample(k)
        score = mitosis_score(network, sample, experiment.precision)
        places += [(k, x, y) for x, y in _peaks(score, sample, mining.least_score)]
    return places


@torch.inference_mode()
def mitosis_score(network: nn.Module, sample: Sample, precision: str) -> NDArray[np.float32]:
    """Return the mitosis score of an image in large windows, ``(h, w)``, 0 to 1; 0 where a last window does not fit.

    Parameters
    ----------
    network : Module
        In eval mode.
    sample : Sample
        The image.
    precision : {"fp32", "bf16"}
        Arithmetic.

    Returns
    -------
    ndarray of float32, shape (h, w)
        The score.
    """
    h, w = sample.image.shape[:2]
    device = next(network.parameters()).device
    out = np.zeros((h, w), np.float32)
    for rows, columns in itertools.product(_windows(h), _windows(w)):
        window = np.ascontiguousarray(sample.image[rows, columns].transpose(2, 0, 1))
        pixels = torch.from_numpy(window)[None].to(device).float() / 127.5 - 1
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = network.logits(pixels.contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        out[rows, columns] = torch.sigmoid(2 * logits[0, 1].float()).cpu().numpy()
    return out


def _windows(length_px: int) -> list[slice]:
    """Return the windows along a side: as large as may be, and on a small image as large as the network takes."""
    side = min(_WINDOW_PX, length_px // _MULTIPLE_PX * _MULTIPLE_PX)
    return [slice(k, k + side) for k in range(0, length_px - side + 1, side)] if side else []


def _peaks(score: NDArray[np.float32], sample: Sample, least: float) -> list[tuple[float, float]]:
    smooth = cv2.GaussianBlur(score, (0, 0), 2)
    truth = cv2.dilate((sample.labels[..., MITOSES] != 0).astype(np.uint8), _NEAR_TRUTH)
    ys, xs = np.nonzero((smooth == cv2.dilate(smooth, _PEAK)) & (smooth > least) & (truth == 0))
    return [(float(x), float(y)) for y, x in zip(ys, xs, strict=True)]
