"""Which parts of a data set's images a training looks at: what a pack holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Experiment, Source

TILE_PX = 512
"""Greatest side of the tiles into which whole fields are cut."""
_WHOLE = 1.25
"""An image no larger than so many tiles a side is not cut."""


class Region(NamedTuple):
    """A part of an entry's sample, in its pixels; the ends are not part of it."""

    entry: int
    x0_px: int
    y0_px: int
    x1_px: int
    y1_px: int

    def holds(self, other: Region) -> bool:
        """Return whether another region lies in this one.

        Parameters
        ----------
        other : Region
            Of any entry.

        Returns
        -------
        bool
            Whether every pixel of it does.
        """
        return (
            self.entry == other.entry
            and self.x0_px <= other.x0_px
            and self.y0_px <= other.y0_px
            and self.x1_px >= other.x1_px
            and self.y1_px >= other.y1_px
        )


def reach_of(experiment: Experiment) -> float:
    """Return how far from its place, in pixels, a patch sees, however it is turned.

    What a patch that is moved or reduced shows beyond is mirrored. Smaller regions are more of them: more mitoses in a pack.

    Parameters
    ----------
    experiment : Experiment
        Settings.

    Returns
    -------
    float
        Pixels of the sample.
    """
    shift = experiment.consistency.shift_px if experiment.consistency else 0
    return (experiment.patch_px + shift) / 2 * math.sqrt(2)


def regions_of(experiment: Experiment, pool: Pool, source: Source) -> list[Region]:
    """Return the regions that a source draws from: its patients take turns, each patient's regions in a random order.

    Around mitoses and look-alikes it is a square as wide as a patch can reach. Elsewhere it is tiles of the whole image.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    source : Source
        One of the experiment's.

    Returns
    -------
    list of Region
        In the order in which they are to be packed.
    """
    if source.at in {"mitoses", "look_alikes"}:
        places = pool.mitoses_of(source) if source.at == "mitoses" else pool.look_alikes_of(source)
        reach = reach_of(experiment)
        found = [_around(pool, place, reach) for place in places]
    else:
        found = [tile for k in pool.of(source) for tile in _tiles(pool, k)]
    return _in_turns(pool, found, experiment.seed)


def _around(pool: Pool, place: Place, reach_px: float) -> Region:
    entry, x, y = place
    h, w = pool.sample(entry).image.shape[:2]
    x0, y0 = (max(0, math.floor(v - reach_px)) for v in (x, y))
    return Region(entry, x0, y0, min(w, math.ceil(x + reach_px)), min(h, math.ceil(y + reach_px)))


def _tiles(pool: Pool, entry: int) -> Iterator[Region]:
    h, w = pool.sample(entry).image.shape[:2]
    rows, columns = (
        np.linspace(0, n, max(1, math.ceil(n / TILE_PX / _WHOLE)) + 1).astype(int) for n in (h, w)
    )
    for y0, y1 in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        for x0, x1 in zip(columns[:-1].tolist(), columns[1:].tolist(), strict=True):
            yield Region(entry, x0, y0, x1, y1)


def _in_turns(pool: Pool, regions: Sequence[Region], seed: int) -> list[Region]:
    order = np.random.default_rng(seed).permutation(len(regions))
    of_patient: dict[str, list[Region]] = defaultdict(list)
    for k in order.tolist():
        of_patient[pool.entries[regions[k].entry].patient].append(regions[k])
    turns = [(n, patient, r) for patient in of_patient for n, r in enumerate(of_patient[patient])]
    return [r for _, _, r in sorted(turns, key=lambda t: t[:2])]
