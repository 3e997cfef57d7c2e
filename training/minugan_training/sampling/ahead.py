"""Batches made in worker processes, ahead of the steps that need them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from minugan_training.sampling.sampler import Batch, Sampler

_AHEAD = 3
"""Batches that each process makes in advance."""
_ENDLESS = 1 << 40
SHARED = Path("/dev/shm")  # noqa: S108 - only its free space is asked for
_SPARE = 2
"""How many times as much shared memory must be free as the batches in advance take."""


class BatchesAhead:
    """Hands out a sampler's batches, made by other processes in advance.

    A batch depends on seed, step and hard negatives alone, so it is the same whoever makes it. When the hard negatives are
    renewed, or another step is asked for than the next, what was made in advance is thrown away.

    Parameters
    ----------
    sampler : Sampler
        Makes the batches.
    workers : int
        How many processes make them, at least 1. They are forked: what the sampler's pool has read, all of them share.
    parts : int
        Batches of a step.
    rank : int
        Which process of a distributed training this is.
    """

    def __init__(self, sampler: Sampler, workers: int, parts: int = 1, rank: int = 0) -> None:
        self._sampler, self._workers, self._parts, self._rank = sampler, workers, parts, rank
        self._made: Iterator[tuple[NDArray[Any], ...]] | None = None
        self._batch_bytes = 0
        self._next = -1
        self._hard = sampler.hard

    def batch(self, step: int, part: int = 0) -> Batch:
        """Return a step's patches; see `Sampler.batch`.

        Parameters
        ----------
        step, part : int
            Which batch. The next one is ready soonest.

        Returns
        -------
        Batch
            As the sampler makes it.
        """
        wanted = step * self._parts + part - self._rank * self._parts
        if self._made is None or wanted != self._next or self._hard is not self._sampler.hard:
            self._hard = self._sampler.hard
            self._made = None  # ends the processes before others begin
            self._made = self._begin(wanted)
        self._next = wanted + 1
        return Batch(*next(self._made))

    def _begin(self, first: int) -> Iterator[tuple[NDArray[Any], ...]]:
        made = _Numbered(self._sampler, self._parts, self._rank, first)
        self._batch_bytes = self._batch_bytes or sum(a.nbytes for a in made[0])
        return made_ahead(made, self._workers, self._batch_bytes)


def made_ahead(
    made: Dataset[Any], workers: int, batch_bytes: int, order: Iterable[Any] | None = None
) -> Iterator[tuple[NDArray[Any], ...]]:
    """Return the arrays of batches that other processes make in advance.

    Parameters
    ----------
    made : Dataset
        Makes them, each a tuple of arrays.
    workers : int
        Processes; 0: this one, when a batch is wanted.
    batch_bytes : int
        What the arrays of a batch take.
    order : iterable, optional
        What the dataset is asked for, one after another; by default 0, 1, 2 and so on.

    Returns
    -------
    iterator of tuple of ndarray
        In that order.
    """
    if workers:  # before any process is forked: OpenCV's threads are not there in the other, which would wait for them for ever
        cv2.setNumThreads(1)
    # Pipes are slow for what a GPU needs. Tensors go through shared memory, of which containers may have little.
    shared = room_bytes() > _SPARE * batch_bytes * workers * (_AHEAD + 1)
    batches = DataLoader(
        made,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_as_tensors if shared else _as_it_is,
        prefetch_factor=_AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    return (tuple(a.numpy() if isinstance(a, Tensor) else a for a in batch) for batch in batches)


class _Numbered(Dataset[Batch]):
    """The batches from one on, by number."""

    def __init__(self, sampler: Sampler, parts: int, rank: int, first: int) -> None:
        self._sampler, self._parts, self._rank, self._first = sampler, parts, rank, first

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Batch:
        step, part = divmod(self._first + index, self._parts)
        return self._sampler.batch(step, self._rank * self._parts + part)


def room_bytes() -> int:
    """Return how much shared memory is free.

    Returns
    -------
    int
        Bytes; 0 where there is none.
    """
    return shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0


def _as_it_is(batch: Any) -> Any:
    return batch


def _as_tensors(batch: Any) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(a) for a in batch)
