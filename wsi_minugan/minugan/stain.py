"""A slide's stain: how densely its tissue is stained with haematoxylin and eosin, and the map that brings it to another stain.

Colours are split into stains by the vectors of Ruifrok and Johnston (2001). Mean and spread of each stain's density are moved, as
Reinhard et al. (2001) do with colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.ink import ink_in

_ROWS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS: NDArray[np.float32] = (_ROWS / np.linalg.norm(_ROWS, axis=1, keepdims=True)).astype(np.float32)
"""Rows: haematoxylin, eosin, rest; columns: optical density in R, G, B."""
UNMIX: NDArray[np.float32] = np.linalg.inv(STAINS).astype(np.float32)

TISSUE_DENSITY = 0.3
"""Least sum of a pixel's optical densities in R, G and B: below it, it is the slide's ground."""
_LEAST_SPREAD = 0.02
_RATIO = (0.5, 2.0)
_BLACK = 40
"""Grey level of the brightest colour below which a pixel is black: no stain is, but what a scanner left out, folds and dirt are."""
_LEAST_TISSUE = 0.25
"""Least share of a patch that is tissue, so that its figures are those of tissue."""
_EVERY_PX = 2

_Number = Annotated[float, Field(allow_inf_nan=False, ge=-10, le=10)]
_Spread = Annotated[float, Field(gt=0, le=10)]


class StainStatistics(FrozenModel):
    """How densely tissue is stained with haematoxylin, with eosin, and with what neither explains."""

    mean: tuple[_Number, _Number, _Number] = Field(
        description="Mean optical density of each stain over tissue."
    )
    spread: tuple[_Spread, _Spread, _Spread] = Field(description="Standard deviation of each.")


@dataclass(frozen=True)
class StainMap:
    """An affine map of optical densities, which fades out towards white.

    Attributes
    ----------
    matrix : tuple of tuple of float, shape (3, 3)
        The row of densities in R, G, B is multiplied with it from the left.
    offset : tuple of float, shape (3,)
        Added to the product.
    """

    matrix: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
    offset: tuple[float, float, float]


def optical_density(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the optical densities of RGB values 0 to 255, of the same shape.

    Parameters
    ----------
    rgb : ndarray of float32
        0 to 255; the last axis is R, G, B.

    Returns
    -------
    ndarray of float32
        Natural logarithms; white is 0.
    """
    return np.asarray(-np.log((rgb + 1) / 256), np.float32)


def rgb_of(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the RGB values of optical densities, not yet cut to 0 to 255.

    Parameters
    ----------
    density : ndarray of float32
        What `optical_density` returns.

    Returns
    -------
    ndarray of float32
        Of the same shape.
    """
    return np.asarray(256 * np.exp(-density) - 1, np.float32)


def with_density_times(rgb: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return RGB values whose optical densities are multiplied by a factor: a darker or paler stain.

    Parameters
    ----------
    rgb : ndarray of float
        0 to 255.
    factor : float
        Above 1: darker.

    Returns
    -------
    ndarray of float
        Of the same shape, not yet cut to 0 to 255.
    """
    return np.asarray(256 * ((rgb + 1) / 256) ** factor - 1, np.float64)


def statistics_of(density: NDArray[np.float32]) -> StainStatistics:
    """Return mean and spread of tissue's stain densities; the spread is never nothing.

    Parameters
    ----------
    density : ndarray of float32, shape (n, 3)
        Densities of the three stains, optical density.

    Returns
    -------
    StainStatistics
        Mean and standard deviation of each stain, with four digits.
    """
    return _written(density.mean(axis=0), density.std(axis=0))


def slide_stain(patches: Iterable[NDArray[np.uint8]]) -> StainStatistics | None:
    """Return the stain of the slide that patches are of: the median of their figures, so that a part of odd ones does not matter.

    Ground, green and blue ink and black are left out of each patch. What else is odd (pools of blood, red ink) may fill up to a good
    third of the patches.

    Parameters
    ----------
    patches : iterable of ndarray of uint8, shape (h, w, 3)
        RGB, spread over the slide's tissue.

    Returns
    -------
    StainStatistics or None
        None where no patch holds enough tissue.
    """
    found = [d for d in map(_densities, patches) if d is not None]
    if not found:
        return None
    means = np.array([d.mean(axis=0, dtype=np.float64) for d in found])
    spreads = np.array([d.std(axis=0, dtype=np.float64) for d in found])
    return _written(np.median(means, axis=0), np.median(spreads, axis=0))


def map_between(own: StainStatistics, wanted: StainStatistics) -> StainMap:
    """Return the map that moves a slide's stain densities to those of another; spreads change by a factor of 0.5 to 2.

    Parameters
    ----------
    own : StainStatistics
        The slide's.
    wanted : StainStatistics
        The other's.

    Returns
    -------
    StainMap
        With six digits.
    """
    ratio = np.clip(np.array(wanted.spread) / own.spread, *_RATIO)
    matrix = UNMIX.astype(np.float64) * ratio @ STAINS
    offset = (np.array(wanted.mean) - np.array(own.mean) * ratio) @ STAINS
    red, green, blue = (_three(row, 6) for row in matrix)
    return StainMap((red, green, blue), _three(offset, 6))


def _densities(patch: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the densities ``(n, 3)`` of some of a patch's tissue; None where there is too little."""
    every = (slice(None, None, _EVERY_PX),) * 2
    pixels = patch[every]
    optical = optical_density(pixels.astype(np.float32))
    tissue = (optical.sum(axis=2) > TISSUE_DENSITY) & (pixels.max(axis=2) >= _BLACK) & ~ink_in(patch)[every]
    return np.asarray(optical[tissue] @ UNMIX, np.float32) if tissue.mean() >= _LEAST_TISSUE else None


def _written(mean: NDArray[np.floating], spread: NDArray[np.floating]) -> StainStatistics:
    return StainStatistics(mean=_three(mean, 4), spread=_three(np.maximum(spread, _LEAST_SPREAD), 4))


def _three(values: NDArray[np.floating], digits: int) -> tuple[float, float, float]:
    first, second, third = (round(float(v), digits) + 0.0 for v in values)  # no minus zero
    return first, second, third
