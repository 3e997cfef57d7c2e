"""Readers' marks, from what they left behind: result folders, whole batches, GeoJSON files and folders of these."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from wsi_minugan.counting.agreement import Reading
from wsi_minugan.counting.count import scores_of
from wsi_minugan.counting.windows import circle_of, find_windows
from wsi_minugan.errors import InputError
from wsi_minugan.outputs.geojson import read_marks
from wsi_minugan.outputs.manifest import MANIFEST, REVIEWS, read_manifest

_SUFFIXES = (".geojson", ".geojson.gz", ".json")
ONE_CASE = "case"
_LARGEST_DIFFERENCE = 1e-4
"""Of two resolutions of one scan, as a share: 2.5 um on a slide of 25 mm."""


def read_readers(
    sources: Sequence[Path], mpp: float | None, hpf_diameter_mm: float
) -> tuple[dict[str, dict[str, Reading]], list[str]]:
    """Return the cases that all readers read, and the names of those that some did not.

    Parameters
    ----------
    sources : sequence of Path
        One for each reader. Of single files and single slides' folders each is the same case.
    mpp : float, optional
        um/px of GeoJSON files; result folders say their own.
    hpf_diameter_mm : float
        Diameter of a field, for the scores.

    Returns
    -------
    readings : dict of str to dict of str to Reading
        By reader, then by case.
    left_out : list of str
        Cases that some did not read.

    Raises
    ------
    InputError
        If a source holds no marks, or no case is common to all.
    """
    names = _names(sources)
    found = {n: _cases(s, mpp, hpf_diameter_mm) for n, s in zip(names, sources, strict=True)}
    if all(len(cases) == 1 for cases in found.values()):
        # A single slide has another name on another scanner, and with each reader.
        return {n: {ONE_CASE: next(iter(cases.values()))} for n, cases in found.items()}, []
    common = set.intersection(*(set(c) for c in found.values()))
    if not common:
        raise InputError(
            "No case is common to all: cases are matched by their slide's name, or the file's without its ending."
        )
    left = sorted(set.union(*(set(c) for c in found.values())) - common)
    return {n: {c: r for c, r in cases.items() if c in common} for n, cases in found.items()}, left


def require_one_scan(readings: Mapping[str, Mapping[str, Reading]]) -> None:
    """Make sure that places can be compared: each case's marks lie on one scan, or on a copy reduced by a whole factor.

    Parameters
    ----------
    readings : mapping of str to mapping of str to Reading
        By reader, then by case; all readers have the same cases.

    Raises
    ------
    InputError
        If the resolutions of a case say otherwise. Its places would be some um apart at one end, and hundreds at the other.
    """
    for (first, of_first), (other, of_other) in combinations(readings.items(), 2):
        for case, reading in of_first.items():
            a, b = reading.mpp, of_other[case].mpp
            factor = max(a, b) / min(a, b)
            if abs(factor - round(factor)) > _LARGEST_DIFFERENCE:
                raise InputError(
                    f"{first} has {a:g} um/px and {other} {b:g}, so their places cannot be compared. Are both of one scan? "
                    f"Then give a GeoJSON that scan's --mpp. Had each reader another scan? Then use --no-places."
                )


def _names(sources: Sequence[Path]) -> list[str]:
    """Return short names that differ."""
    short = [s.resolve().name for s in sources]
    names = [n if short.count(n) == 1 else str(s) for n, s in zip(short, sources, strict=True)]
    for name, source in zip(names, sources, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{source} is named twice. Name another reader beside it.")
    return names


def _cases(source: Path, mpp: float | None, hpf_diameter_mm: float) -> dict[str, Reading]:
    if not source.exists():
        raise InputError(f"There is no {source}. Check the name.")
    if not source.is_dir():
        return {_stem(source): _reading(source, (0, 0), mpp, hpf_diameter_mm)}
    if (source / MANIFEST).is_file():
        return {source.name: _of_slide(source, hpf_diameter_mm)}
    slide = source.absolute().parent.parent
    if source.absolute().parent.name == REVIEWS and (slide / MANIFEST).is_file():
        return {slide.name: _of_slide(slide, hpf_diameter_mm, source)}
    slides = [p for p in sorted(source.iterdir()) if (p / MANIFEST).is_file()]
    if slides:
        return {p.name: _of_slide(p, hpf_diameter_mm) for p in slides}
    files = [p for p in sorted(source.iterdir()) if p.is_file() and p.name.lower().endswith(_SUFFIXES)]
    if not files:
        raise InputError(
            f"{source} holds neither results nor GeoJSON files. Name a result folder or a folder of GeoJSON files."
        )
    return {_stem(p): _reading(p, (0, 0), mpp, hpf_diameter_mm) for p in files}


def _stem(path: Path) -> str:
    return next((path.name[: -len(s)] for s in _SUFFIXES if path.name.lower().endswith(s)), path.name)


def _of_slide(folder: Path, hpf_diameter_mm: float, marked_in: Path | None = None) -> Reading:
    """Return the mitoses of a slide's folder, or of a review's folder in it."""
    sealed = read_manifest(folder)
    return _reading(
        (marked_in or folder) / "mitoses.geojson", sealed.geojson_origin_px, sealed.slide.mpp, hpf_diameter_mm
    )


def _reading(path: Path, origin_px: tuple[int, int], mpp: float | None, hpf_diameter_mm: float) -> Reading:
    points = read_marks(path, origin_px).points_px
    if mpp is None:
        raise InputError(f"A GeoJSON does not say its resolution. Give --mpp for {path}.")
    area_mm2 = 10 * math.pi * (hpf_diameter_mm / 2) ** 2
    spots = find_windows(points, circle_of(area_mm2, mpp))
    score = scores_of(spots[0].mitoses if spots else 0, area_mm2, hpf_diameter_mm).nottingham
    return Reading(points, mpp, score)
