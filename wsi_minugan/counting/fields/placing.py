"""Ten high-power fields: circles that do not overlap and together hold the most mitoses, and how good that total is proved to be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.fields.adjacent import grow_adjacent
from wsi_minugan.counting.fields.packing import pack
from wsi_minugan.counting.hotspot import find_hotspot
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.windows import Shape, find_windows

FloatArray = NDArray[np.float64]
Mode = Literal["adjacent", "free"]
FIELDS = 10
LIMIT_S = 6.0
_SLACK = 1e-9
_REACH = 11.0
"""Ten fields that touch each other lie within so many radii of one of their centres: at most five steps of two, and one."""


@dataclass(frozen=True)
class Fields:
    """High-power fields placed on a slide.

    Attributes
    ----------
    centers_px : ndarray of float, shape (fields, 2)
        x, y of their centres, in the px of the points; those with the most mitoses first. Empty where there are no mitoses.
    counts : tuple of int
        Mitoses in each field, in the order of the centres.
    total : int
        Mitoses in all fields.
    upper_bound : int
        No placement of the fields holds more than this.
    """

    centers_px: FloatArray
    counts: tuple[int, ...]
    total: int
    upper_bound: int

    @property
    def proved_optimal(self) -> bool:
        """Whether no placement holds more than this one.

        Returns
        -------
        bool
            True where the total is the upper bound.
        """
        return self.total == self.upper_bound


def find_fields(
    points_px: FloatArray,
    diameter_px: float,
    mode: Mode = "free",
    fields: int = FIELDS,
    tissue: TissueRaster | None = None,
    limit_s: float = LIMIT_S,
) -> Fields:
    """Place fields that do not overlap so that they hold the most points.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, in px of any frame.
    diameter_px : float
        Diameter of a field, in the same px.
    mode : {"free", "adjacent"}
        Whether fields may lie anywhere, or each must touch another so that all hang together.
    fields : int
        Number of fields.
    tissue : TissueRaster, optional
        What was analysed. Fields that hold no mitoses are laid where most of it is.
    limit_s : float
        Seconds of processor time after which no better placement is looked for.

    Returns
    -------
    Fields
        Where fewer fields hold all mitoses, the others lie beside them and hold none. Without mitoses there are no fields.

    Notes
    -----
    Free fields are chosen by an integer program over all sets of points that a field can hold; see `packing`. Its bound proves most
    placements best. Adjacent fields are grown by a beam search, which proves nothing; their bound is a simpler one.

    Examples
    --------
    >>> placed = find_fields(np.array([[0.0, 0.0], [5.0, 0.0], [99.0, 0.0]]), diameter_px=10)
    >>> placed.total, placed.proved_optimal
    (3, True)
    """
    points = np.asarray(points_px, np.float64).reshape(-1, 2)
    if len(points) == 0:
        return Fields(np.zeros((0, 2)), (), 0, 0)
    radius = diameter_px / 2
    origin = points.mean(axis=0)
    places, weights = np.unique((points - origin) / radius, axis=0, return_counts=True)
    greedy = _greedy(places, weights, fields)
    bound = _simple_bound(places, weights, fields)
    # What holds all there is needs no program to prove it, which can be slow just then: many choices hold as much.
    packed = None if _total(places, weights, greedy) == bound else pack(places, weights, fields, limit_s)
    bound = min(bound, packed.upper_bound if packed else bound)
    best = max([greedy] + ([packed.centers] if packed else []), key=partial(_total, places, weights))
    if mode == "adjacent":
        best, bound = _adjacent(places, weights, fields, best, bound)
    elif _total(places, weights, best) < bound:
        touching, _ = _adjacent(places, weights, fields, best, bound)
        best = max(
            (_improved(places, weights, c) for c in (best, touching)), key=partial(_total, places, weights)
        )
    if mode == "free":
        best = best[[_total(places, weights, c[None]) > 0 for c in best]]
    return _described(
        points, diameter_px, _filled(best * radius + origin, diameter_px, fields, tissue), bound
    )


def _greedy(places: FloatArray, weights: NDArray[np.int64], fields: int) -> FloatArray:
    """Return the best field, then the best that does not overlap it, and so on."""
    found = find_windows(np.repeat(places, weights, axis=0), Shape(2.0, 2.0), fields)
    return np.array([(w.x_px, w.y_px) for w in found])


def _improved(places: FloatArray, weights: NDArray[np.int64], centers: FloatArray) -> FloatArray:
    """Return the fields after each in turn was taken away and laid where it holds more, until none gains."""
    gained = True
    while gained:
        gained = False
        for k in range(len(centers)):
            others = np.delete(centers, k, axis=0)
            free = ~(np.hypot(*(places[None] - others[:, None]).transpose(2, 0, 1)) <= 1 + _SLACK).any(axis=0)
            left = np.repeat(places[free], weights[free], axis=0)
            found = find_windows(left, Shape(2.0, 2.0), clear_of=others)
            moved = np.concatenate([others, [(w.x_px, w.y_px) for w in found]]) if found else centers
            if _total(places, weights, moved) > _total(places, weights, centers):
                centers, gained = moved, True
    return centers


def _simple_bound(places: FloatArray, weights: NDArray[np.int64], fields: int) -> int:
    best = find_hotspot(np.repeat(places, weights, axis=0), 1.0)
    return min(int(weights.sum()), fields * (best.mitoses if best else 0))


def _adjacent(
    places: FloatArray, weights: NDArray[np.int64], fields: int, seeds: FloatArray, bound: int
) -> tuple[FloatArray, int]:
    """Return fields that touch, and a bound: what free fields hold at most, or all that so many that touch can reach."""
    more = find_windows(np.repeat(places, weights, axis=0), Shape(2.0, 2.0), 12)
    order = np.argsort([-_total(places, weights, c[None]) for c in seeds], kind="stable")
    begin = np.concatenate([seeds[order], np.array([(w.x_px, w.y_px) for w in more])])
    reach = find_hotspot(np.repeat(places, weights, axis=0), _REACH * fields / FIELDS + 1)
    return grow_adjacent(places, weights, fields, begin), min(bound, reach.mitoses if reach else 0)


def _total(places: FloatArray, weights: NDArray[np.int64], centers: FloatArray) -> int:
    held = np.hypot(*(places[None] - centers[:, None]).transpose(2, 0, 1)) <= 1 + _SLACK
    return int(weights[held.any(axis=0)].sum())


def _filled(centers: FloatArray, diameter_px: float, fields: int, tissue: TissueRaster | None) -> FloatArray:
    """Return the fields with empty ones beside them, on tissue where that is known, so that all are there."""
    lacking = fields - len(centers)
    if lacking <= 0:
        return centers
    middle, reach = centers[0], int(np.ceil(np.sqrt(4.0 * fields))) + 2
    i, j = (g.ravel() for g in np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)))
    step = diameter_px * (1 + 1e-6)
    lattice = middle + step * np.stack([i + 0.5 * (j % 2), j * np.sqrt(0.75)], axis=1)
    apart = np.hypot(*(lattice[:, None] - centers).transpose(2, 0, 1)).min(axis=1) >= diameter_px
    lattice = lattice[apart]
    share = (
        np.array([tissue.share(True, diameter_px, diameter_px, x, y) for x, y in lattice])
        if tissue
        else (lattice >= diameter_px / 2).all(axis=1).astype(float)
    )
    away = np.hypot(*(lattice - middle).T)
    order = np.lexsort((lattice[:, 0], lattice[:, 1], np.round(away, 3), -np.round(share, 1)))
    return np.concatenate([centers, lattice[order[:lacking]]])


def _described(points: FloatArray, diameter_px: float, centers: FloatArray, bound: int) -> Fields:
    held = np.hypot(*(points[None] - centers[:, None]).transpose(2, 0, 1)) <= diameter_px / 2 * (
        1 + 10 * _SLACK
    )
    # A mitosis where two fields touch counts once.
    held &= np.cumsum(held, axis=0) == 1
    counts = held.sum(axis=1)
    order = np.lexsort((centers[:, 0], centers[:, 1], -counts))
    total = int(counts.sum())
    return Fields(centers[order], tuple(counts[order].tolist()), total, max(total, bound))
