"""The second stage's batches, made by this process or by others ahead of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from minugan_training.classification.crops import CropSampler
from minugan_training.sampling.ahead import made_ahead
from wsi_minugan.minugan.second_stage import INPUT_PX


class CropBatch(NamedTuple):
    """What one step is shown.

    Attributes
    ----------
    images : ndarray of float32, shape (n, 3, 64, 64)
        RGB in [-1, 1].
    targets : ndarray of float32, shape (n,)
        Probabilities.
    chosen : ndarray of int64, shape (n,)
        Indices of the candidates.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.float32]
    chosen: NDArray[np.int64]


def crop_batches(
    sampler: CropSampler,
    steps: Iterable[int],
    size: int,
    weights: Callable[[], NDArray[np.float64]],
    workers: int = 0,
) -> Iterator[CropBatch]:
    """Return the batches of steps.

    Parameters
    ----------
    sampler : CropSampler
        Makes them.
    steps : iterable of int
        Which.
    size : int
        Crops in each.
    weights : callable
        Gives each candidate's chance; asked when the making of a batch begins.
    workers : int
        Processes that make them; 0: this one, when a batch is wanted.

    Returns
    -------
    iterator of CropBatch
        In the order of the steps.
    """
    drawn = ((step, sampler.draw(step, size, weights())) for step in steps)
    crop_bytes = INPUT_PX * INPUT_PX * 3 * np.dtype(np.float32).itemsize
    return (CropBatch(*b) for b in made_ahead(_Made(sampler), workers, size * crop_bytes, drawn))


class _Made(Dataset[CropBatch]):
    """Batches by step and what was drawn for it."""

    def __init__(self, sampler: CropSampler) -> None:
        self._sampler = sampler

    def __getitem__(self, drawn: tuple[int, NDArray[np.int64]]) -> CropBatch:
        return CropBatch(*self._sampler.made(*drawn), drawn[1])
