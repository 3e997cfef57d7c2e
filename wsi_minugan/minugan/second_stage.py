"""The second stage in use: every candidate of a patch gets the calibrated probability that it is a mitotic figure.

A candidate's probability depends on its patch alone, as the first stage's scores do, so results do not depend on how a slide is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import EDGE_PX, MITOSIS_CHANNEL, NUCLEUS_CHANNEL
from wsi_minugan.minugan.card import CandidateStage

Patches = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
LogitsOf = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

FIELD_PX = 80
"""Side of what the classifier sees around a candidate, at the model's resolution: 20 um."""
INPUT_PX = 64
"""Side of the crop that it is given: the field, reduced to 0.3125 um/px."""

_LEAST_AREA_PX = 32
SHARE_OF_PEAK = 0.5
"""Of its highest score, which a candidate's pixels reach where the card has no `full_score`: what is faint around it or joins
it to another moves neither its centre nor its outline."""


@dataclass(frozen=True)
class Candidate:
    """One candidate on one patch.

    Attributes
    ----------
    patch : int
        Index of the patch in its batch.
    inside : tuple of ndarray of int64, each of shape (k,)
        Rows and columns of its pixels in the patch.
    centre_px : tuple of float
        x, y in px of the patch; the centre of pixel 0 is at 0.5.
    smooth : ndarray of uint8, shape (k,)
        255 times the first stage's smoothed scores of its pixels.
    """

    patch: int
    inside: tuple[NDArray[np.int64], NDArray[np.int64]]
    centre_px: tuple[float, float]
    smooth: NDArray[np.uint8]

    @property
    def peak(self) -> float:
        """The first stage's highest smoothed score in it, 0 to 1.

        Returns
        -------
        float
            0 to 1.
        """
        return int(self.smooth.max()) / 255


def find_candidates(
    scores: NDArray[np.uint8], least_score: float, patch: int = 0, share_of_peak: float = 0.0
) -> list[Candidate]:
    """Return the candidates of one patch.

    Parameters
    ----------
    scores : ndarray of uint8, shape (h, w)
        255 times the first stage's mitosis scores.
    least_score : float
        Smoothed score from which on a pixel is part of a candidate, 0 to 1.
    patch : int
        Index that the candidates carry.
    share_of_peak : float
        Share of its own highest score that a candidate's pixels have at least, 0 to 1.

    Returns
    -------
    list of Candidate
        In the order of their first pixels.
    """
    least = round(255 * least_score)
    if scores[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX].max(initial=0) < least:
        return []
    smooth = cv2.GaussianBlur(scores, (5, 5), 1.0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (smooth >= least).astype(np.uint8), connectivity=8
    )
    h, w = scores.shape
    found = []
    for k in range(1, count):
        x, y, width, height, area = stats[k].tolist()
        within = x + width > EDGE_PX and y + height > EDGE_PX and x < w - EDGE_PX and y < h - EDGE_PX
        if area >= _LEAST_AREA_PX and within:
            whole = labels[y : y + height, x : x + width] == k
            near = smooth[y : y + height, x : x + width]
            rows, columns = np.nonzero(whole & (near >= share_of_peak * near[whole].max()))
            inside = rows + y, columns + x
            centre = float(inside[1].mean()) + 0.5, float(inside[0].mean()) + 0.5
            found.append(Candidate(patch, inside, centre, smooth[inside]))
    return found


class SecondStage:
    """Judges candidates by what classifiers say of them.

    Parameters
    ----------
    card : CandidateStage
        Calibration, and which scores make a candidate.
    logits_of : callable
        From crops ``(n, 64, 64, 3)`` to logits ``(n,)``.
    """

    def __init__(self, card: CandidateStage, logits_of: LogitsOf) -> None:
        self._card = card
        self._logits_of = logits_of

    def judge(self, patches: Patches, scores: NDArray[np.uint8]) -> None:
        """Put each candidate's probability in place of its mitosis scores, and 0 elsewhere.

        What is no mitosis stays a nucleus.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (256, 256, 3)
            RGB at the model's resolution.
        scores : ndarray of uint8, shape (n, 3, 256, 256)
            255 times the first stage's scores; changed in place.
        """
        share_of_peak = SHARE_OF_PEAK if self._card.full_score is None else 0.0
        found = [
            c
            for k, s in enumerate(scores[:, MITOSIS_CHANNEL])
            for c in find_candidates(s, self._card.least_score, k, share_of_peak)
        ]
        scores[:, MITOSIS_CHANNEL] = 0
        if not found:
            return
        logits = self._logits_of(np.stack([crop_around(patches[c.patch], c.centre_px) for c in found]))
        for c, logit in zip(found, logits.tolist(), strict=True):
            p = self._card.probability(logit, c.peak)
            here = (c.patch, MITOSIS_CHANNEL, *c.inside)
            first = c.smooth.astype(np.float32) / 255
            scores[here] = np.rint(255 * p * self._shares(first)).astype(np.uint8)
            nucleus = (c.patch, NUCLEUS_CHANNEL, *c.inside)
            scores[nucleus] = np.maximum(scores[nucleus], np.rint(255 * (1 - p) * first).astype(np.uint8))

    def _shares(self, first: NDArray[np.floating]) -> NDArray[np.floating] | float:
        """Return which part of a candidate's probability its pixels have."""
        least, full = self._card.least_score, self._card.full_score
        if full is None:
            return 1.0
        shares: NDArray[np.floating] = np.clip((first - least) / (full - least), 0, 1)
        return shares


def crop_around(image: NDArray[np.uint8], centre_px: tuple[float, float]) -> NDArray[np.uint8]:
    """Return what the classifier sees around a place of an image.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution. It is mirrored beyond its border.
    centre_px : tuple of float
        x, y; the centre of pixel 0 is at 0.5.

    Returns
    -------
    ndarray of uint8, shape (64, 64, 3)
        RGB at 0.3125 um/px.
    """
    scale = INPUT_PX / FIELD_PX
    # OpenCV counts from the middles of pixels.
    shift = [INPUT_PX / 2 - 0.5 - scale * (v - 0.5) for v in centre_px]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    out = cv2.warpAffine(
        image, matrix, (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(out, np.uint8)
