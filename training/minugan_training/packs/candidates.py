"""Candidates in one small file, for a machine that has nothing else: their crops as WebP."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.classification.candidates import (
    CROP_PX,
    LOOK_ALIKE,
    MITOSIS,
    Candidates,
    chosen,
)
from wsi_minugan.errors import DataError
from wsi_minugan.outputs.atomic import atomic_path

_ROW_BYTES = 400
"""What a candidate takes besides its crop, at most."""
_TOLD = tuple(c.name for c in fields(Candidates) if c.name != "crops")


def pack_candidates(found: Candidates, path: Path, largest_bytes: int, quality: int = 80) -> Candidates:
    """Write as many candidates as fit: mitoses and look-alikes first, then what the first stage scored highest.

    Patients and kinds take turns.

    Parameters
    ----------
    found : Candidates
        What there is.
    path : Path
        The file.
    largest_bytes : int
        Its greatest size.
    quality : int
        WebP's, 1 to 100.

    Returns
    -------
    Candidates
        Those that went in, with the crops as they were.

    Raises
    ------
    DataError
        If not all mitoses fit.
    """
    room, packed, files = largest_bytes, [], []
    for k in _in_turns(found):
        file = _encoded(found.crops[k], quality)
        room -= len(file) + _ROW_BYTES
        if room < 0:
            break
        packed.append(k)
        files.append(file)
    kept = chosen(found, np.array(packed, np.int64))
    if (kept.kind == MITOSIS).sum() < (found.kind == MITOSIS).sum():
        raise DataError(f"The mitoses do not fit into {largest_bytes} bytes. Allow more, or a lower quality.")
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {name: getattr(kept, name) for name in _TOLD}
    ends = np.cumsum([len(f) for f in files])
    with atomic_path(path) as temporary, temporary.open("wb") as f:
        np.savez(f, webp=np.frombuffer(b"".join(files), np.uint8), ends=ends, **told)
    return kept


def packed_candidates(path: Path) -> Candidates:
    """Read what `pack_candidates` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Candidates
        With their crops.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            told = {name: data[name] for name in _TOLD}
            files = np.split(data["webp"], data["ends"][:-1])
            return Candidates(crops=np.stack([_decoded(f) for f in files]), **told)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, cv2.error) as e:
        raise DataError(
            f"The packed candidates {path} cannot be read: {e}. Make them with: minugan-train pack-candidates"
        ) from e


def _in_turns(found: Candidates) -> Iterator[int]:
    """Yield all indices, the most wanted first."""
    labelled = np.isin(found.kind, (MITOSIS, LOOK_ALIKE))
    yield from np.flatnonzero(labelled).tolist()
    whose = np.char.add(np.char.add(found.patient, "|"), found.kind.astype(str))
    turn = np.zeros(len(found.kind), np.int64)
    for name in np.unique(whose[~labelled]):
        own = np.flatnonzero((whose == name) & ~labelled)
        turn[own[np.argsort(-found.score[own], kind="stable")]] = np.arange(len(own))
    others = np.flatnonzero(~labelled)
    yield from others[np.argsort(turn[others], kind="stable")].tolist()


def _encoded(crop: NDArray[np.uint8], quality: int) -> bytes:
    _, file = cv2.imencode(
        ".webp", np.ascontiguousarray(crop[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality]
    )
    return file.tobytes()


def _decoded(file: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = cv2.imdecode(file, cv2.IMREAD_COLOR)
    if picture is None or picture.shape != (CROP_PX, CROP_PX, 3):
        raise ValueError("a crop is damaged")
    return np.asarray(picture[..., ::-1], np.uint8)
