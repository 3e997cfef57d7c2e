"""Where patches lie that are scored: at random around a mitosis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minugan_training.sampling.pool import Place, Pool

WHOLE_PX = 32
"""So far from a patch's border a mitosis's centre lies at least: then it is whole."""


def around_mitoses(pool: Pool, mitoses: Sequence[Place], size_px: int, seed: int) -> list[Place]:
    """Return the middle of a patch for each mitosis: random, but the mitosis is not on the patch's border (paper, p. 2).

    A mitosis always in the middle would be found by its place alone, even by a network that takes the whole patch for one. The
    same seed gives the same patches.

    Parameters
    ----------
    pool : Pool
        Samples.
    mitoses : sequence of Place
        The mitoses' centres.
    size_px : int
        The patches' side.
    seed : int
        Of the places.

    Returns
    -------
    list of Place
        Entry, x and y.
    """
    half = size_px / 2
    reach = max(0.0, half - WHOLE_PX)
    rng = np.random.default_rng(seed)
    places = []
    for k, x, y in mitoses:
        h, w = pool.sample(k).image.shape[:2]
        moved = np.array([x, y]) + rng.uniform(-reach, reach, 2)
        ax, ay = (
            float(np.clip(v, min(half, s / 2), max(s - half, s / 2)))
            for v, s in zip(moved, (w, h), strict=True)
        )
        places.append((k, ax, ay))
    return places
