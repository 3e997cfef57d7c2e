"""From scores to a class map, by operations of a fixed reach only."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BACKGROUND, NUCLEUS, MITOSIS = 0, 1, 2
REACH_PX = 16
"""No pixel further away than this has a say in a pixel's class."""

_TILE_PX = 512  # so small that a tile stays in the processor's cache
_DISC_3 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_DISC_7 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of scores of 0 to 1; see the model's card.

    Attributes
    ----------
    mitosis, nucleus, boundary : float
        Least score at which a pixel is taken for a mitosis, a nucleus, or a boundary between
        nuclei.
    """

    mitosis: float
    nucleus: float
    boundary: float


def class_map(scores: NDArray[np.uint8], cut: Thresholds) -> NDArray[np.uint8]:
    """Return the class of every pixel.

    As in the paper (p. 8, Mitosis Detection Performance), mitoses are cleaned by a small erosion (here an opening)
    and their holes closed. A mitosis wins over a nucleus; the boundary parts touching nuclei.

    Parameters
    ----------
    scores : ndarray of uint8, shape (3, h, w)
        255 times the scores of nucleus, mitosis, boundary. The outer `REACH_PX` of the result are not final.
    cut : Thresholds
        Thresholds of the three channels.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        0 background, 1 nucleus, 2 mitosis.
    """
    height, width = scores.shape[1:]
    out = np.zeros((height, width), np.uint8)
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            tile = np.s_[top : top + _TILE_PX, left : left + _TILE_PX]
            y, x = max(0, top - REACH_PX), max(0, left - REACH_PX)
            around = scores[:, y : top + _TILE_PX + REACH_PX, x : left + _TILE_PX + REACH_PX]
            inner = np.s_[top - y : top - y + _TILE_PX, left - x : left - x + _TILE_PX]
            out[tile] = _tile_classes(around, cut)[inner]
    return out


def _tile_classes(scores: NDArray[np.uint8], cut: Thresholds) -> NDArray[np.uint8]:
    nucleus = (scores[0] >= _level(cut.nucleus)) & (scores[2] < _level(cut.boundary))
    # Smoothing does not raise the highest score: in most tiles there is no mitosis to clean.
    if scores[1].max(initial=0) < _level(cut.mitosis):
        return np.asarray(cv2.morphologyEx(nucleus.view(np.uint8), cv2.MORPH_OPEN, _DISC_3), np.uint8)
    smooth = cv2.GaussianBlur(scores[1], (5, 5), 1.0)
    mitosis = (smooth >= _level(cut.mitosis)).astype(np.uint8)
    mitosis = cv2.morphologyEx(mitosis, cv2.MORPH_CLOSE, _DISC_7)
    mitosis = cv2.morphologyEx(mitosis, cv2.MORPH_OPEN, _DISC_3)
    nucleus = (nucleus & (mitosis == 0)).astype(np.uint8)
    nucleus = cv2.morphologyEx(nucleus, cv2.MORPH_OPEN, _DISC_3)
    return np.where(mitosis > 0, np.uint8(MITOSIS), nucleus)


def _level(threshold: float) -> int:
    return max(1, round(255 * threshold))
