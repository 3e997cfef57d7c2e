"""Weights in files small enough to be carried, and joined again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from minugan_training.fitting.checkpoint import read_weights
from wsi_minugan.errors import TrainingError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.outputs.atomic import write_bytes, write_text

LARGEST_BYTES = 16_000_000
PARTS = "parts.json"


class Parts(FrozenModel):
    """What belongs together: the parts' names, in order, and the whole's digest."""

    parts: tuple[str, ...] = Field(min_length=1)
    sha256: str
    bytes: int


def split_weights(
    weights: Path, folder: Path, half: bool = False, largest_bytes: int = LARGEST_BYTES
) -> list[Path]:
    """Write weights as files of at most so many bytes, with a list of them.

    Parameters
    ----------
    weights : Path
        A safetensors file.
    folder : Path
        Gets the parts and ``parts.json``.
    half : bool
        Keep the weights of convolutions and the like in 16 bits (fp16): half the size, three to four digits. Norms and biases
        stay as they are: their numbers can be too large for it.
    largest_bytes : int
        A part's greatest size.

    Returns
    -------
    list of Path
        The files, the list of parts last.

    Raises
    ------
    TrainingError
        If the weights cannot be read.
    """
    tensors = read_weights(weights)
    if half:
        tensors = {k: _halved(v) for k, v in tensors.items()}
    whole = save({k: v.contiguous() for k, v in tensors.items()})
    count = -(-len(whole) // largest_bytes)
    names = [f"{weights.stem}-{n + 1}-of-{count}.part" for n in range(count)]
    for n, name in enumerate(names):
        write_bytes(folder / name, whole[n * largest_bytes : (n + 1) * largest_bytes], parents=True)
    told = Parts(parts=tuple(names), sha256=hashlib.sha256(whole).hexdigest(), bytes=len(whole))
    write_text(folder / PARTS, told.model_dump_json(indent=1) + "\n", parents=True)
    return [folder / n for n in (*names, PARTS)]


def _halved(values: torch.Tensor) -> torch.Tensor:
    """Return numbers in 16 bits, where these can hold them."""
    halved = values.half()
    fits = values.dtype == torch.float32 and values.ndim > 1 and bool(torch.isfinite(halved).all())
    return halved if fits else values


def join_weights(folder: Path, weights: Path) -> None:
    """Join the parts in a folder to a safetensors file; numbers of 16 bits become 32 again.

    Parameters
    ----------
    folder : Path
        What `split_weights` wrote.
    weights : Path
        The file.

    Raises
    ------
    TrainingError
        If a part is missing or changed.
    """
    try:
        told = Parts.model_validate_json((folder / PARTS).read_bytes())
        if not all(re.fullmatch(r"[\w.-]+\.part", name) for name in told.parts):
            raise ValueError("a part's name is none")
        whole = b"".join((folder / name).read_bytes() for name in told.parts)
        if hashlib.sha256(whole).hexdigest() != told.sha256:
            raise ValueError("the parts are not those that were written")
        tensors = load(whole)
    except (OSError, ValidationError, ValueError, SafetensorError) as e:
        raise TrainingError(f"The weights in {folder} cannot be joined: {e}. Copy all parts again.") from e
    full = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
    write_bytes(weights, save(full), parents=True)
