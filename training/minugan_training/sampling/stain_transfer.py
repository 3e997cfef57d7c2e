"""Stain transfer: a patch in the stain densities of another patient's slide, so that no colour tells which laboratory holds the mitoses.

True negatives come from few slides here, mitoses from many: without this, a network can learn the scanner instead of the nucleus.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from minugan_training.data.labels import IGNORE, Sample
from wsi_minugan.minugan.scoring import restained
from wsi_minugan.minugan.stain import (
    TISSUE_DENSITY,
    UNMIX,
    StainStatistics,
    map_between,
    optical_density,
    statistics_of,
)

_EVERY_PX = 5


def stain_statistics_of(samples: Iterable[Sample]) -> StainStatistics | None:
    """Return the stain statistics of samples, without pixels of which nothing is known (paint, borders); None without tissue.

    Parameters
    ----------
    samples : iterable of Sample
        Images of one slide.

    Returns
    -------
    StainStatistics or None
        Of all tissue on them.
    """
    found = [_tissue_of(s) for s in samples]
    density = np.concatenate(found) if found else np.zeros((0, 3), np.float32)
    if not len(density):
        return None
    return statistics_of(density)


def _tissue_of(sample: Sample) -> NDArray[np.float32]:
    every = (slice(None, None, _EVERY_PX),) * 2
    optical = optical_density(sample.image[every].astype(np.float32))
    known = (sample.labels[every] != IGNORE).any(axis=2)
    return np.asarray(optical[(optical.sum(axis=2) > TISSUE_DENSITY) & known] @ UNMIX, np.float32)


def transfer_stain(
    image: NDArray[np.uint8], own: StainStatistics, wanted: StainStatistics
) -> NDArray[np.uint8]:
    """Return an RGB image with its tissue's densities moved from one slide's statistics to another's; white stays white.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    own : StainStatistics
        The slide's.
    wanted : StainStatistics
        The other slide's.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.
    """
    moved: NDArray[np.uint8] = restained(
        torch.from_numpy(np.ascontiguousarray(image)), map_between(own, wanted)
    ).numpy()
    return moved
