"""Stain transfer: a patch in the stain densities of another patient's slide, so that no colour tells which laboratory holds the mitoses.

True negatives come from few slides here, mitoses from many: without this, a network can learn the scanner instead of the nucleus.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.labels import IGNORE, Sample
from minugan_training.data.stain import STAINS, UNMIX, optical_density, rgb_of

TISSUE_DENSITY = 0.3
"""Least sum of a pixel's optical densities in R, G and B: below it, it is the slide's ground."""
_EVERY_PX = 5
_LEAST_SPREAD = 0.02
_RATIO = (0.5, 2.0)


class StainStatistics(NamedTuple):
    """How densely tissue is stained.

    Attributes
    ----------
    mean, spread : ndarray of float32, shape (3,)
        Of the densities of haematoxylin, eosin and the rest over tissue.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]


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


def statistics_of(density: NDArray[np.float32]) -> StainStatistics:
    """Return mean and spread of tissue's stain densities, shape ``(n, 3)``; the spread is never nothing.

    Parameters
    ----------
    density : ndarray of float32, shape (n, 3)
        Densities of the three stains, optical density.

    Returns
    -------
    StainStatistics
        Mean and standard deviation of each stain.
    """
    return StainStatistics(density.mean(axis=0), np.maximum(density.std(axis=0), _LEAST_SPREAD))


def _tissue_of(sample: Sample) -> NDArray[np.float32]:
    every = (slice(None, None, _EVERY_PX),) * 2
    optical = optical_density(sample.image[every].astype(np.float32))
    known = (sample.labels[every] != IGNORE).any(axis=2)
    return np.asarray(optical[(optical.sum(axis=2) > TISSUE_DENSITY) & known] @ UNMIX, np.float32)


def transfer_stain(
    image: NDArray[np.uint8], own: StainStatistics, wanted: StainStatistics
) -> NDArray[np.uint8]:
    """Return an RGB image with its tissue's densities moved from one slide's statistics to another's; the slide's ground stays as it is.

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
    optical = optical_density(image.astype(np.float32))
    ratio = np.clip(wanted.spread / own.spread, *_RATIO)
    moved = ((optical @ UNMIX - own.mean) * ratio + wanted.mean) @ STAINS
    # By degrees, so that no line is drawn where the tissue ends.
    share = np.clip(optical.sum(axis=2, keepdims=True) / TISSUE_DENSITY, 0, 1)
    mixed = share * moved + (1 - share) * optical
    return np.asarray(np.clip(rgb_of(mixed), 0, 255), np.uint8)
