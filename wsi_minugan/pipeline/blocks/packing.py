"""Pixels and outlines of a block's objects as the arrays that its scratch file holds.

Runs are four rows of int32, outlines are WKB (OGC 06-103r4) one after another; runs are compressed with Zstandard (RFC 8878).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import imagecodecs
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.segmentation.run_lengths import RunLengthMask


def packed_runs(runs: RunLengthMask) -> NDArray[np.uint8]:
    """Return the runs of a mask as compressed bytes; its shape is not among them.

    Parameters
    ----------
    runs : RunLengthMask
        A block's pixels of one class.

    Returns
    -------
    ndarray of uint8, shape (bytes,)
        Rows, starts, ends and labels, compressed together.
    """
    columns = np.stack([runs.rows, runs.starts, runs.ends, runs.labels])
    return np.frombuffer(imagecodecs.zstd_encode(columns.tobytes(), level=1), np.uint8)


def unpacked_runs(packed: NDArray[np.uint8], shape: tuple[int, int]) -> RunLengthMask:
    """Return the mask that `packed_runs` was given.

    Parameters
    ----------
    packed : ndarray of uint8, shape (bytes,)
        Of `packed_runs`.
    shape : tuple of int
        Height and width of the mask, px.

    Returns
    -------
    RunLengthMask
        The same runs.
    """
    raw = imagecodecs.zstd_decode(packed.tobytes())
    return RunLengthMask(shape, *np.frombuffer(raw, np.int32).reshape(4, -1))


def packed_shapes(name: str, shapes: NDArray[np.object_]) -> dict[str, NDArray[Any]]:
    """Return the outlines of a class as arrays, without those that are None.

    Parameters
    ----------
    name : {"mitoses", "nuclei"}
        The class; each array's name begins with it.
    shapes : ndarray of shapely geometries, shape (labels,)
        The outline of label k + 1 at place k.

    Returns
    -------
    dict of str to ndarray
        Labels (int64), where each outline's bytes end (int64), and the bytes (uint8).
    """
    there = np.flatnonzero([s is not None for s in shapes])
    packed: Iterable[bytes] = shapely.to_wkb(shapes[there]) if len(there) else []
    packed = list(packed)
    return {
        f"{name}.labels": there + 1,
        f"{name}.ends": np.cumsum([len(p) for p in packed], dtype=np.int64),
        f"{name}.wkb": np.frombuffer(b"".join(packed), np.uint8),
    }


def unpacked_shapes(
    name: str, data: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return the labels and outlines that `packed_shapes` was given.

    Parameters
    ----------
    name : {"mitoses", "nuclei"}
        The class.
    data : mapping of str to ndarray
        Arrays of a scratch file.

    Returns
    -------
    labels : ndarray of int64, shape (n,)
        Labels in the block.
    shapes : ndarray of shapely geometries, shape (n,)
        Their outlines.
    """
    labels, ends, wkb = data[f"{name}.labels"], data[f"{name}.ends"], data[f"{name}.wkb"].tobytes()
    starts = np.concatenate([[0], ends])[: len(ends)].astype(np.int64)
    return labels, shapely.from_wkb([wkb[a:b] for a, b in zip(starts, ends, strict=True)])
