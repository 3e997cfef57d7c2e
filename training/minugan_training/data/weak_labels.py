"""Outlines of mitoses from their centres alone, by the darkness of chromatin (weak labels)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.minugan.stain import UNMIX, optical_density

WINDOW_PX = 22
REACH_PX = 20
SEED_PX = 9
FALLBACK_PX = 9
_LEAST_PX, _SPECK_PX = 60, 20
_LEVEL = 0.8
_SPECK = np.ones((3, 3), np.uint8)
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def weak_outlines(image: NDArray[np.uint8], points_px: Sequence[tuple[float, float]]) -> NDArray[np.uint8]:
    """Return outlines of mitoses, seeded by their centres.

    Around each centre the haematoxylin density is cut between what lies around the seed (its 90th percentile within 12 px) and
    the surroundings (30th percentile), and the dark parts that come near the centre are kept; where these are too small, a disc.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB at 0.25 um/px.
    points_px : sequence of (x, y)
        Centres.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        1 where a mitosis is.
    """
    haematoxylin = np.asarray(optical_density(image.astype(np.float32)) @ UNMIX[:, 0], np.float32)
    density = cv2.GaussianBlur(haematoxylin, (0, 0), 1.0)
    out = np.zeros(density.shape, np.uint8)
    for x, y in points_px:
        top, left = max(0, int(y) - WINDOW_PX), max(0, int(x) - WINDOW_PX)
        window = density[top : int(y) + WINDOW_PX + 1, left : int(x) + WINDOW_PX + 1]
        if window.size:
            part = out[top : top + window.shape[0], left : left + window.shape[1]]
            part |= _one(window, x - left, y - top)
    return out


def _one(window: NDArray[np.float32], x: float, y: float) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    distance = np.hypot(columns - x, rows - y)
    near = window[distance < 12]
    high = np.percentile(near, 90) if near.size else window.max()
    low = np.percentile(window, 30)
    cut = high - _LEVEL * (high - low)
    dark = ((window > cut) & (distance < REACH_PX)).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, _SPECK)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    keep = [
        k for k in range(1, count)
        if stats[k, cv2.CC_STAT_AREA] >= _SPECK_PX and distance[labels == k].min() < SEED_PX
    ]  # fmt: skip
    found = np.isin(labels, keep) if keep else np.zeros(dark.shape, bool)
    if found.sum() < _LEAST_PX:
        found = distance < FALLBACK_PX
    return np.asarray(cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, _CLOSE), np.uint8)
