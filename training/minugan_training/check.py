"""What is wrong with an index, before a night is lost on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from minugan_training.importers import image_size
from minugan_training.index import Entry
from wsi_minugan.errors import DataError

UM2_PER_MM2 = 1e6


def problems_of(root: Path, entries: Sequence[Entry]) -> list[str]:
    """Return a sentence for each problem: missing files, wrong sizes, points outside, patients in two splits."""
    problems = [p for e in entries for p in _problems_of_entry(root, e)]
    splits: dict[str, set[str]] = defaultdict(set)
    for e in entries:
        if e.split:
            splits[e.patient].add(e.split)
    problems += [
        f"Patient {p} is in the splits {', '.join(sorted(s))}."
        for p, s in sorted(splits.items())
        if len(s) > 1
    ]
    return problems


def _problems_of_entry(root: Path, e: Entry) -> list[str]:
    found = [f"{e.image}: the file {p} is missing." for p in _files(e) if not (root / p).is_file()]
    if (root / e.image).is_file():
        try:
            w, h = image_size(root / e.image)
        except DataError as error:
            return [*found, str(error)]
        if e.x_px + e.width_px > w or e.y_px + e.height_px > h:
            found.append(
                f"{e.image}: the index says {e.width_px} x {e.height_px} px, the file has {w} x {h}."
            )
    outside = [p for p in e.points_px if not (0 <= p[0] <= e.width_px and 0 <= p[1] <= e.height_px)]
    return found + [f"{e.image}: the point {p[0]:g}, {p[1]:g} lies outside." for p in outside]


def _files(e: Entry) -> list[str]:
    truth = [e.mitoses_truth] if e.mitoses_kind not in {"", "points"} else []
    return [p for p in (e.image, *truth, e.nuclei_truth, e.ignore) if p]


def summary_of(entries: Sequence[Entry]) -> list[tuple[str, str, int, int, str, int]]:
    """Return a row for each data set and split: images, patients, mm2, mitosis points."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for e in entries:
        groups[e.dataset, e.split].append(e)
    rows = []
    for (dataset, split), part in sorted(groups.items()):
        area = sum(e.width_px * e.height_px * e.mpp**2 for e in part) / UM2_PER_MM2
        points = sum(len(e.points_px) for e in part)
        rows.append((dataset, split or "-", len(part), len({e.patient for e in part}), f"{area:.2f}", points))
    return rows
