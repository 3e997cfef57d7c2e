"""What workers and the process that runs the networks say to each other.

A line of JSON goes each way over a Unix socket. Pixels and scores lie in memory that both see: the first half is the worker's, the
second half has the answer.
"""

from __future__ import annotations

import json
import mmap
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from wsi_minugan.config import OUT_CHANNELS, PATCH_PX, SQUARE_PX, Precision
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.devices import DeviceType
from wsi_minugan.minugan.second_stage import INPUT_PX
from wsi_minugan.minugan.stain import StainMap

CROP_SHAPE = INPUT_PX, INPUT_PX, 3
PATCH_BYTES = PATCH_PX * PATCH_PX * 3
"""Also those of its scores."""
CROP_BYTES = INPUT_PX * INPUT_PX * 3
LONGEST_LINE = 2**16
_MOST_PATCHES = 4096
_LARGEST_PX = 2**14


class Request(FrozenModel):
    """What a worker asks for.

    Attributes
    ----------
    do : {"open", "scores", "logits", "restained"}
        "open" comes first and once, with the memory's descriptor beside it.
    count : int
        Patches or crops in the memory; with "open", how many patches each half of it holds.
    side_px : int
        Side of each patch.
    at_once : int or None
        Patches per forward pass, where it is not the usual number.
    stain : StainMap or None
        What is done to the patches' stain.
    """

    do: Literal["open", "scores", "logits", "restained"]
    count: int = Field(ge=0)
    side_px: int = Field(PATCH_PX, ge=32, le=_LARGEST_PX, multiple_of=32)
    at_once: Annotated[int, Field(ge=1, le=_MOST_PATCHES)] | None = None
    stain: StainMap | None = None


class Reply(FrozenModel):
    """What comes of a request.

    Attributes
    ----------
    model : str
        Digest of the model's card.
    device_type : {"cpu", "cuda"}
        Where the networks run.
    precision : {"fp32", "bf16", "fp16"}
        The arithmetic.
    batch_size : int
        Patches per forward pass, from now on.
    error, kind : str
        A sentence for the user and the name of its class, where the request was in vain.
    """

    model: str
    device_type: DeviceType
    precision: Precision
    batch_size: int
    error: str = ""
    kind: str = ""


class BadMessageError(ValueError):
    """A line that is no request, or asks for more than the memory holds."""


def shapes_of(side_px: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the shape of a patch, and that of its scores in squares of pixels.

    Parameters
    ----------
    side_px : int
        The patch's side.

    Returns
    -------
    tuple of tuple of int
        ``(side, side, 3)`` and ``(side / 2, side / 2, 12)``.
    """
    half = side_px // SQUARE_PX
    return (side_px, side_px, 3), (half, half, OUT_CHANNELS * SQUARE_PX**2)


def request_of(line: bytes) -> Request:
    """Return the request that a line holds.

    Parameters
    ----------
    line : bytes
        JSON.

    Returns
    -------
    Request
        It fits the model; whether the memory holds as much is for `half_of` to say.

    Raises
    ------
    BadMessageError
        If it is none.
    """
    try:
        return Request.model_validate_json(line)
    except ValidationError as e:
        raise BadMessageError(f"not a request: {e.error_count()} faults") from e


def line_of(message: FrozenModel) -> bytes:
    """Return a message as a line.

    Parameters
    ----------
    message : Request or Reply
        What to say.

    Returns
    -------
    bytes
        JSON, and the end of the line.
    """
    return json.dumps(message.model_dump(mode="json", exclude_none=True)).encode() + b"\n"


def memory_bytes(patches: int) -> int:
    """Return the size of a memory whose halves hold so many patches.

    Parameters
    ----------
    patches : int
        1 to 4096.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    BadMessageError
        If it is another number.
    """
    if not 1 <= patches <= _MOST_PATCHES:
        raise BadMessageError(f"{patches} patches do not fit into one message")
    return 2 * patches * PATCH_BYTES


def half_of(
    memory: mmap.mmap, second: bool, count: int, shape: tuple[int, ...], dtype: type[Any] = np.uint8
) -> NDArray[Any]:
    """Return an array that lies in one half of the memory.

    Parameters
    ----------
    memory : mmap
        Of both sides.
    second : bool
        Whether it is the answer's half.
    count : int
        How many items.
    shape : tuple of int
        Of each.
    dtype : type
        Of their numbers.

    Returns
    -------
    ndarray, shape (count, *shape)
        A view.

    Raises
    ------
    BadMessageError
        If the half does not hold as many.
    """
    half = len(memory) // 2
    items = count * int(np.prod(shape, dtype=np.int64))
    if items * np.dtype(dtype).itemsize > half:
        raise BadMessageError(f"{count} items of {shape} do not fit into the memory")
    return np.frombuffer(memory, dtype, items, half if second else 0).reshape(count, *shape)
