"""What ends a training before its time, told in a sentence: memory that runs out, and values that are not finite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import torch
from torch import Tensor

from wsi_minugan.errors import TrainingError

_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "insufficient memory",
    "alloc_failed",
)
"""How torch (on a CPU a plain RuntimeError), CUDA's libraries and OpenCV say that memory ran out."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn whatever says that memory ran out, in the block, into a TrainingError.

    Raises
    ------
    TrainingError
        If memory ran out; other errors pass as they are.
    """
    try:
        yield
    except (MemoryError, RuntimeError, cv2.error) as e:
        if not isinstance(e, MemoryError) and not any(sign in str(e).lower() for sign in _NO_MEMORY):
            raise
        raise TrainingError(
            "Memory ran out. Use a smaller batch with 'accumulate', or a smaller ngf, in a new folder; "
            "the last checkpoint is kept."
        ) from e


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every number is one: no NaN, no infinity, and no gradient so long that its norm is infinite.

    Parameters
    ----------
    tensors : iterable of Tensor
        On any devices.

    Returns
    -------
    bool
        True for none.
    """
    norms: dict[torch.device, list[Tensor]] = defaultdict(list)
    for t in tensors:  # on a GPU an optimiser still counts its steps on the CPU
        norms[t.device].append(torch.linalg.vector_norm(t.detach().float()))
    return all(bool(torch.stack(part).isfinite().all()) for part in norms.values())


def not_finite(what: str) -> TrainingError:
    """Return the error for a loss, a gradient or weights that are not numbers; `what` says which, as a sentence.

    Parameters
    ----------
    what : str
        A sentence.

    Returns
    -------
    TrainingError
        To be raised.
    """
    return TrainingError(
        f"{what} The last checkpoint is kept. Lower the learning rate; a new folder can start from this one's weights "
        "with --start-from."
    )
