"""What is wrong with an index, before a night is lost on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.images import read_mask, read_rgb
from minugan_training.data.index import WRITTEN_OUT, Entry
from minugan_training.data.outlines import monuseg_corners, pixel_lists, within
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import UM2_PER_MM2

_OVER_THE_EDGE_PX = 2
"""Annotators' outlines of nuclei at an image's edge run over it by about a pixel."""


def problems_of(root: Path, entries: Sequence[Entry]) -> list[str]:
    """Return a sentence for each problem.

    These are files that are missing, cut short or of a wrong size, truth that lies outside its image, and patients in two
    splits. Every image is decoded. Where an image has
    a single entry that starts at its corner, the sizes must be equal; otherwise entries are regions, which must lie in it.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index.

    Returns
    -------
    list of str
        Empty where there is none.
    """
    of_image: dict[str, list[Entry]] = defaultdict(list)
    for e in entries:
        of_image[e.image].append(e)
    found = [p for part in of_image.values() for p in _problems_of_image(root, part)]
    found += _patients_in_two_splits(entries)
    return list(dict.fromkeys(found))


def _patients_in_two_splits(entries: Sequence[Entry]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for e in entries:
        if e.split:
            splits[e.patient].add(e.split)
    return [
        f"Patient {p} is in the splits {', '.join(sorted(s))}."
        for p, s in sorted(splits.items())
        if len(s) > 1
    ]


def _problems_of_image(root: Path, entries: Sequence[Entry]) -> Iterator[str]:
    path = root / entries[0].image
    for e in entries:
        yield from (f"{e.image}: the file {p} is missing." for p in _files(e) if not (root / p).is_file())
        outside = [p for p in e.points_px if not (0 <= p[0] <= e.width_px and 0 <= p[1] <= e.height_px)]
        yield from (f"{e.image}: the point {p[0]:g}, {p[1]:g} lies outside." for p in outside)
    if not path.is_file():
        return
    try:
        shape = read_rgb(path).shape[:2]
    except DataError as error:
        yield str(error)
        return
    for e in entries:
        yield from _wrong_size(e, shape, whole=len(entries) == 1 and e.x_px == e.y_px == 0)
        yield from _wrong_labels(root, e, shape)


def _wrong_size(e: Entry, shape: tuple[int, ...], *, whole: bool) -> Iterator[str]:
    h, w = shape
    if whole and (e.width_px, e.height_px) != (w, h):
        yield f"{e.image}: the index says {e.width_px} x {e.height_px} px, the file has {w} x {h}."
    elif e.x_px + e.width_px > w or e.y_px + e.height_px > h:
        yield (
            f"{e.image}: the index says {e.width_px} x {e.height_px} px from {e.x_px}, {e.y_px}, "
            f"the file has {w} x {h}."
        )


def _files(e: Entry) -> list[str]:
    truth = [e.mitoses_truth] if e.mitoses_kind not in WRITTEN_OUT else []
    return [p for p in (e.image, *truth, e.nuclei_truth, e.ignore) if p]


def _wrong_labels(root: Path, e: Entry, shape: tuple[int, ...]) -> Iterator[str]:
    """Tell of truth that does not fit the image; such truth would be cut off in training, without a word."""
    labels = {e.mitoses_truth: e.mitoses_kind, e.nuclei_truth: e.nuclei_kind, e.ignore: "instances"}
    for name, kind in labels.items():
        look = _LOOKS.get(kind)
        if look is None or not name or not (root / name).is_file():
            continue
        try:
            wrong = look(root / name, shape)
        except DataError as error:
            wrong = str(error)
        if wrong:
            yield f"{e.image}: {wrong}"


def _label_map(path: Path, shape: tuple[int, ...]) -> str:
    return _other_shape(path, read_rgb(path).shape, shape)


def _mask(path: Path, shape: tuple[int, ...]) -> str:
    return _other_shape(path, read_mask(path).shape, shape)


def _other_shape(path: Path, found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found[:2] == shape:
        return ""
    return f"the label {path} has {found[1]} x {found[0]} px, the image {shape[1]} x {shape[0]}."


def _pixels(path: Path, shape: tuple[int, ...]) -> str:
    lists = pixel_lists(path)
    outside = [~within(xy, shape) for xy in lists]
    return _count_outside(path, "pixels", lists, outside)


def _vertices(path: Path, shape: tuple[int, ...]) -> str:
    lists = monuseg_corners(path)
    far = np.array(shape[::-1]) + _OVER_THE_EDGE_PX
    outside = [np.logical_not(((xy >= -_OVER_THE_EDGE_PX) & (xy <= far)).all(axis=1)) for xy in lists]
    return _count_outside(path, "vertices", lists, outside)


def _count_outside(
    path: Path,
    what: str,
    lists: Sequence[NDArray[np.generic]],
    outside: Sequence[NDArray[np.bool_]],
) -> str:
    count = sum(int(o.sum()) for o in outside)
    if not count:
        return ""
    x, y = next(xy[o][0].tolist() for xy, o in zip(lists, outside, strict=True) if o.any())
    return f"{count} {what} in {path} lie outside, {x:g}, {y:g} for one."


_LOOKS: dict[str, Callable[[Path, tuple[int, ...]], str]] = {
    "rgb": _label_map,
    "instances": _mask,
    "foreground": _mask,
    "pixel-lists": _pixels,
    "monuseg-xml": _vertices,
}
"""What is wrong with a truth file of each kind, in words, or nothing."""


def summary_of(entries: Sequence[Entry]) -> list[tuple[str, str, int, int, str, int]]:
    """Return a row for each data set and split: images, patients, mm2, mitosis points.

    Parameters
    ----------
    entries : sequence of Entry
        The index.

    Returns
    -------
    list of tuple
        Data set, split, number of images, number of patients, mm2 in words, number of mitoses
        given as points.
    """
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for e in entries:
        groups[e.dataset, e.split].append(e)
    rows = []
    for (dataset, split), part in sorted(groups.items()):
        area = sum(e.width_px * e.height_px * e.mpp**2 for e in part) / UM2_PER_MM2
        points = sum(len(e.points_px) for e in part)
        rows.append((dataset, split or "-", len(part), len({e.patient for e in part}), f"{area:.2f}", points))
    return rows
