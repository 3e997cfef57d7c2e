"""The colours of glass, ink and tissue in a low-resolution picture of a slide."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LEAST_BRIGHT, _MOST_TINT, _PINK = 150.0, 80.0, 6.0
_FLAT_RANGE = 6
_LEAST_GLASS_CELLS, _LEAST_GLASS_SHARE = 50, 0.01
_MODE_REACH = 6.0
_INK_CELLS = 20
_INK_MARGIN = 5
_GLASS_AROUND = 0.3
_LEAST_FOLD, _FOLD_RATIO, _DENSE = 0.54, 1.3, 0.9
"""A fold's mean optical density is at least the first, and at least so many times that which a tenth of the tissue exceeds. Two layers have
twice the density of one; dense glands and tumours have less (docs/decisions/0034-folds-and-ink.md)."""
_FOLD_CELLS, _FOLD_BLUR = 100, 1.5
_STROKE_CELLS = 61


def glass_of(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the colour of a slide's glass; None where none is seen.

    Glass is what is bright and even. Lamps tint it yellow or blue, never pink, as pale tissue is.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        The slide at low resolution, RGB.

    Returns
    -------
    ndarray of float32, shape (3,), or None
        RGB.
    """
    kernel = np.ones((3, 3), np.uint8)
    spread = (cv2.dilate(picture, kernel) - cv2.erode(picture, kernel)).max(axis=2)
    mean = picture.mean(axis=2)
    red, green, blue = (picture[..., k].astype(np.float32) for k in range(3))
    even = (spread <= _FLAT_RANGE) & (mean >= _LEAST_BRIGHT) & (np.ptp(picture, axis=2) <= _MOST_TINT)
    # Pure white is what a scanner filled up; glass under its lamp is not.
    glass = picture[even & (green >= (red + blue) / 2 - _PINK) & (picture.min(axis=2) < 255)]
    if len(glass) < max(_LEAST_GLASS_CELLS, _LEAST_GLASS_SHARE * mean.size):
        return None
    brightness = glass.mean(axis=1)
    counts = np.bincount(np.rint(brightness).astype(int), minlength=256)
    near = np.abs(brightness - float(counts.argmax())) <= _MODE_REACH
    return np.asarray(np.median(glass[near], axis=0), np.float32)


def balanced(picture: NDArray[np.uint8], glass: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Return a picture, ``(h, w, 3)`` RGB, as if its glass had no tint; unchanged where no glass is known.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB.
    glass : ndarray of float32, shape (3,), or None
        Colour of the glass.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.
    """
    if glass is None:
        return picture
    gain = glass.max() / np.maximum(glass, 1.0)
    return np.asarray(np.clip(np.rint(picture * gain), 0, 255), np.uint8)


def ink_in(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where pen marks are in a balanced low-resolution picture, with a margin; shapes ``(h, w, 3)`` in, ``(h, w)`` out.

    Green and blue ink has more green than red, violet ink far more blue than red: tissue in H&E has neither. Black ink darkens all colours
    alike, red ink green and blue alike. So do pigment and blood, so these two count only where they lie on glass in part.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB, its glass without tint.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True in ink.
    """
    red, green, blue = (picture[..., k].astype(np.int16) for k in range(3))
    density = -np.log(np.maximum(picture, 1).astype(np.float32) / 255)
    most, least = density.max(axis=2), density.min(axis=2)
    coloured = (green - red > 12) & (np.ptp(picture, axis=2) >= 20)
    violet = _large((blue - red > 100) & (np.abs(green - red) < 45))
    near = cv2.dilate(violet.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    violet |= near & (blue - red > 20) & (np.abs(green - red) < 30)
    black = (most > 0.6) & (least > 0.75 * most)
    scarlet = (red - np.maximum(green, blue) > 80) & (np.abs(green - blue) < 45) & (green < 130)
    glassy = (picture.min(axis=2) > 200) & (np.ptp(picture, axis=2) < 16)
    found = _large(coloured) | violet
    for kind in (black, scarlet):
        found |= _partly_on(_large(kind), glassy)
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_INK_MARGIN, _INK_MARGIN))
    return np.asarray(cv2.dilate(found.astype(np.uint8), margin), np.bool_)


def folds_in(picture: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where tissue is as dark as two layers of it are, in pieces of 0.0064 mm2 or more.

    Parameters
    ----------
    picture : ndarray of uint8, shape (h, w, 3)
        RGB at 8 um a pixel, its glass without tint.
    tissue : ndarray of bool, shape (h, w)
        Tissue, without ink.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True in folds.
    """
    density = -np.log(np.maximum(picture, 1).astype(np.float32) / 255).mean(axis=2)
    smooth = cv2.GaussianBlur(density, (0, 0), _FOLD_BLUR)
    if not tissue.any():
        return np.zeros_like(tissue)
    cut = max(_LEAST_FOLD, _FOLD_RATIO * float(np.quantile(smooth[tissue], _DENSE)))
    return _large(tissue & (smooth >= cut), _FOLD_CELLS)


def inked_tissue(ink: NDArray[np.bool_], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which ink lies on tissue: where tissue goes on beyond a stroke of up to half a millimetre.

    Parameters
    ----------
    ink, tissue : ndarray of bool, shape (h, w)
        At 8 um a pixel.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True where ink covers tissue.
    """
    if not ink.any():
        return ink
    kernel = np.ones((_STROKE_CELLS, _STROKE_CELLS), np.uint8)
    padded = np.pad(tissue.astype(np.uint8), _STROKE_CELLS)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)
    inner = slice(_STROKE_CELLS, -_STROKE_CELLS)
    return np.asarray(ink & (closed[inner, inner] > 0) & ~tissue, np.bool_)


def _large(mask: NDArray[np.bool_], least: int = _INK_CELLS) -> NDArray[np.bool_]:
    """Return the pieces of a mask that have so many cells; by default enough for a pen's stroke."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = np.zeros(count, bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= least
    return np.asarray(keep[labels], np.bool_)


def _partly_on(mask: NDArray[np.bool_], ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pieces of a mask of whose surroundings a good part is `ground`."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    if count == 1:
        return mask
    grown = cv2.dilate(labels.astype(np.float32), np.ones((7, 7), np.uint8)).astype(np.int32)
    ring = (grown > 0) & ~mask
    around = np.bincount(grown[ring], minlength=count)
    on_ground = np.bincount(grown[ring & ground], minlength=count)
    keep = on_ground >= _GLASS_AROUND * np.maximum(around, 1)
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)
