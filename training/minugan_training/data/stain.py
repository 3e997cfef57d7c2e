"""Stains: optical densities of haematoxylin and eosin (Ruifrok and Johnston 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS: NDArray[np.float32] = (_ROWS / np.linalg.norm(_ROWS, axis=1, keepdims=True)).astype(np.float32)
"""Rows: haematoxylin, eosin, rest; columns: optical density in R, G, B."""
UNMIX: NDArray[np.float32] = np.linalg.inv(STAINS).astype(np.float32)


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


def haematoxylin(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the haematoxylin density of an RGB image, shape ``(h, w)``.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    ndarray of float32, shape (h, w)
        By the stain vectors of Ruifrok and Johnston (2001).
    """
    found: NDArray[np.float32] = optical_density(image.astype(np.float32)) @ UNMIX[:, 0]
    return found
