"""Marker ink, which a network that never saw it takes for chromatin."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LEAST_EXCESS = 20
"""Grey levels by which green exceeds red in green, blue and black-green ink. In chromatin red exceeds green, by 18 or more in the mean of
each of 1,360 mitoses of six scanners (docs/decisions/0016-ink.md)."""

_SPECK = np.ones((3, 3), np.uint8)
_REACH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))


def ink_in(patch: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a patch shows marker ink, with a margin of 4 px.

    Parameters
    ----------
    patch : ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True in green and blue ink. Ink of other colours is not found.
    """
    excess = cv2.subtract(patch[..., 1], patch[..., 0])
    inked = (cv2.GaussianBlur(excess, (5, 5), 1.0) > _LEAST_EXCESS).astype(np.uint8)
    found: NDArray[np.bool_] = cv2.dilate(cv2.morphologyEx(inked, cv2.MORPH_OPEN, _SPECK), _REACH).astype(
        bool
    )
    return found
