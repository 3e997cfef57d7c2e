"""Pixels and outlines of a block's objects as the arrays that its scratch file holds.

Runs are four rows of int32, outlines are WKB (OGC 06-103r4) one after another; runs are compressed with Zstandard (RFC 8878).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.merging import SlideObjects
from wsi_minugan.segmentation.objects import BlockObjects
from wsi_minugan.segmentation.run_lengths import RunLengthMask, combined


@dataclass(frozen=True)
class ClassObjects:
    """A block's objects of one class, and the outlines of those that lie wholly inside.

    Attributes
    ----------
    objects : BlockObjects
        Table and borders.
    shapes : ndarray of shapely geometries, shape (n,)
        Outlines in analysis px; None for objects that touch the block's border.
    """

    objects: BlockObjects
    shapes: NDArray[np.object_]


def packed_block(
    runs: Mapping[str, RunLengthMask], found: Mapping[str, ClassObjects]
) -> dict[str, NDArray[Any]]:
    """Return what a block found as arrays.

    Parameters
    ----------
    runs : mapping of str to RunLengthMask
        Pixels by class.
    found : mapping of str to ClassObjects
        Objects by class.

    Returns
    -------
    dict of str to ndarray
        Each array's name begins with the class.
    """
    arrays: dict[str, NDArray[Any]] = {f"{name}.runs": packed_runs(part) for name, part in runs.items()}
    for name, part in found.items():
        arrays |= {f"{name}.table.{k}": v for k, v in part.objects.table.items()}
        arrays |= {f"{name}.border.{k}": v for k, v in part.objects.borders.items()}
        arrays |= packed_shapes(name, part.shapes)
    return arrays


def unpacked_objects(name: str, data: Mapping[str, NDArray[Any]], box: Box) -> BlockObjects:
    """Return a class's table and borders.

    Parameters
    ----------
    name : {"mitoses", "nuclei"}
        The class.
    data : mapping of str to ndarray
        Arrays of `packed_block`.
    box : Box
        The block, analysis px.

    Returns
    -------
    BlockObjects
        As the block's stage measured them.
    """
    parts: dict[str, dict[str, Any]] = {"table": {}, "border": {}}
    for key in data:
        head, _, rest = key.partition(".")
        kind, _, column = rest.partition(".")
        if head == name and kind in parts:
            parts[kind][column] = data[key]
    return BlockObjects(box, parts["table"], parts["border"])


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


def packed_merged(merged: SlideObjects, pieces: Mapping[int, RunLengthMask]) -> dict[str, NDArray[Any]]:
    """Return the objects of a slide as arrays.

    Parameters
    ----------
    merged : SlideObjects
        The slide's objects, with the numbers of each block's labels.
    pieces : mapping of int to RunLengthMask
        By block, what lies in it of objects that were split after merging; labels are numbers of the slide.

    Returns
    -------
    dict of str to ndarray
        Columns of the table, and numbers and pieces by block.
    """
    arrays: dict[str, NDArray[Any]] = {f"table.{k}": v for k, v in merged.table.items()}
    arrays |= {f"numbers.{k}": v for k, v in enumerate(merged.numbers)}
    return arrays | {f"pieces.{k}": packed_runs(v) for k, v in pieces.items() if len(v.labels)}


def unpacked_numbered(data: Mapping[str, NDArray[Any]], index: int, runs: RunLengthMask) -> RunLengthMask:
    """Return a block's runs with the slide's numbers as labels; those of dropped objects are left out.

    Parameters
    ----------
    data : mapping of str to ndarray
        Arrays of `packed_merged`.
    index : int
        Which of the plan's blocks.
    runs : RunLengthMask
        The block's runs, with its own labels.

    Returns
    -------
    RunLengthMask
        In raster order.
    """
    numbers = data[f"numbers.{index}"][runs.labels].astype(np.int32)
    kept = replace(runs.of(numbers > 0), labels=numbers[numbers > 0])
    if f"pieces.{index}" not in data:
        return kept
    pieces = unpacked_runs(data[f"pieces.{index}"], runs.shape)
    return combined(runs.shape, [kept, pieces], np.concatenate([kept.labels, pieces.labels]))


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
