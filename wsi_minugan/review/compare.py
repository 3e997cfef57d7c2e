"""A corrected set of objects against the original: by UUID, and by place where a UUID was lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wsi_minugan.outputs.objects import Marked

SAME_PLACE_UM = 7.5
"""Objects whose centres are so near are the same mitosis where a UUID was lost: MIDOG's radius of matching."""

MOVED_UM = 1.0
"""A centre that moved farther than this was moved by a person; less comes from rounding, or from a brush at the edge."""

Kind = Literal["kept", "moved", "reclassified", "removed", "added"]
KINDS: tuple[Kind, ...] = ("kept", "moved", "reclassified", "removed", "added")


@dataclass(frozen=True)
class Change:
    """What a reviewer did with one object.

    Attributes
    ----------
    kind : {"kept", "moved", "reclassified", "removed", "added"}
        Kept: still a mitosis at its place. Moved: still one, elsewhere. Reclassified: still there, and no mitosis any more.
    original : int or None
        Index in the original set; None of what was added.
    corrected : int or None
        Index in the corrected set; None of what was removed.
    distance_um : float
        How far its centre moved.
    """

    kind: Kind
    original: int | None
    corrected: int | None
    distance_um: float = 0.0


def compare(original: Sequence[Marked], corrected: Sequence[Marked], mpp: float) -> tuple[Change, ...]:
    """Return what became of each original mitosis, then what was added.

    An object is found again by its UUID, else by its place (one to one, the least sum of distances, at most
    `SAME_PLACE_UM` apart). An object that is not in the original and whose class is no mitosis is no change.

    Parameters
    ----------
    original : sequence of Marked
        The mitoses of a run, with distinct UUIDs.
    corrected : sequence of Marked
        All objects of the corrected file.
    mpp : float
        um per px of both.

    Returns
    -------
    tuple of Change
        Those of the run's mitoses in their order, then additions.
    """
    before, after = _centres(original), _centres(corrected)
    pairs = _by_uuid(original, corrected, before, after)
    left = [i for i in range(len(original)) if i not in pairs]
    taken = set(pairs.values())
    free = [j for j, o in enumerate(corrected) if j not in taken and (o.counts or o.look_alike)]
    pairs |= {left[a]: free[b] for a, b in match_places(before[left], after[free], SAME_PLACE_UM / mpp)}
    changes = [_change(i, pairs.get(i), corrected, before, after, mpp) for i in range(len(original))]
    taken = set(pairs.values())
    added = [Change("added", None, j) for j, o in enumerate(corrected) if o.counts and j not in taken]
    return (*changes, *added)


def tally(changes: Sequence[Change]) -> dict[Kind, int]:
    """Return how many changes there are of each kind.

    Parameters
    ----------
    changes : sequence of Change
        What `compare` returns.

    Returns
    -------
    dict of str to int
        Every kind, also with none.
    """
    counts = Counter(c.kind for c in changes)
    return {kind: counts[kind] for kind in KINDS}


def match_places(
    before_px: NDArray[np.float64], after_px: NDArray[np.float64], reach_px: float
) -> list[tuple[int, int]]:
    """Return pairs of places, one to one: as many as there can be, and of these the ones with the least sum of distances.

    Parameters
    ----------
    before_px, after_px : ndarrays of float, shapes (n, 2), (m, 2)
        x, y.
    reach_px : float
        Farthest that a pair may be apart.

    Returns
    -------
    list of tuple of int
        Pairs of indices, ascending.
    """
    if not len(before_px) or not len(after_px):
        return []
    near = cKDTree(before_px).sparse_distance_matrix(cKDTree(after_px), reach_px, output_type="coo_matrix")
    rows, columns, distances = near.row, near.col, near.data
    size = len(before_px) + len(after_px)
    links = coo_array((np.ones(len(rows)), (rows, columns + len(before_px))), shape=(size, size))
    _, groups = connected_components(links, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for k, group in enumerate(groups[rows]):
        members[int(group)].append(k)
    pairs = [p for ks in members.values() for p in _assigned(rows[ks], columns[ks], distances[ks], reach_px)]
    return sorted(pairs)


def _assigned(
    rows: NDArray[np.int64], columns: NDArray[np.int64], distances: NDArray[np.float64], reach_px: float
) -> list[tuple[int, int]]:
    """Return the best pairs of places that hang together."""
    i, j = np.unique(rows), np.unique(columns)
    # A pair that must not be costs more than all others together, so that the most pairs are made.
    forbidden = (reach_px + 1.0) * (min(len(i), len(j)) + 1)
    cost = np.full((len(i), len(j)), forbidden)
    cost[np.searchsorted(i, rows), np.searchsorted(j, columns)] = distances
    a, b = linear_sum_assignment(cost)
    return [(int(i[x]), int(j[y])) for x, y in zip(a, b, strict=True) if cost[x, y] < forbidden]


def _centres(objects: Sequence[Marked]) -> NDArray[np.float64]:
    return np.array([o.centre_px for o in objects], np.float64).reshape(-1, 2)


def _by_uuid(
    original: Sequence[Marked],
    corrected: Sequence[Marked],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
) -> dict[int, int]:
    """Return the corrected object of each original one that kept its UUID; of copies the nearest."""
    holders: dict[str, list[int]] = defaultdict(list)
    for j, found in enumerate(corrected):
        if found.id:
            holders[found.id].append(j)
    pairs = {}
    for i, found in enumerate(original):
        if found.id in holders:
            pairs[i] = min(holders[found.id], key=lambda j: float(np.hypot(*(after[j] - before[i]))))
    return pairs


def _change(
    i: int,
    j: int | None,
    corrected: Sequence[Marked],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    mpp: float,
) -> Change:
    if j is None:
        return Change("removed", i, None)
    distance_um = float(np.hypot(*(after[j] - before[i]))) * mpp
    if not corrected[j].counts:
        return Change("reclassified", i, j, distance_um)
    return Change("moved" if distance_um > MOVED_UM else "kept", i, j, distance_um)
