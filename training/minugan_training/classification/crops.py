"""Batches of candidates' crops: one voice for each patient, hard negatives first, and random changes of every crop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.classification.candidates import CROP_PX, DARK, LOOK_ALIKE, MITOSIS, PEAK, Candidates
from minugan_training.data.images import SUBSAMPLED, compressed, soften_colours
from minugan_training.sampling.augmentation import batch_input
from minugan_training.sampling.stain_transfer import transfer_stain
from wsi_minugan.minugan.second_stage import FIELD_PX, INPUT_PX
from wsi_minugan.minugan.stain import (
    TISSUE_DENSITY,
    UNMIX,
    StainStatistics,
    optical_density,
    statistics_of,
)

SHARES: Mapping[int, float] = {MITOSIS: 0.42, LOOK_ALIKE: 0.14, PEAK: 0.3, DARK: 0.14}
"""Of a batch, by kind of candidate."""
_STYLE_CROPS = 40


@dataclass(frozen=True)
class CropSampler:
    """Draws batches of crops; a step's batch depends on the seed, the step and the weights of the candidates alone.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, 128, 128, 3)
        Candidates' surroundings.
    target : ndarray of float, shape (n,)
        Probability of a mitosis.
    kind : ndarray of uint8, shape (n,)
        Kind of candidate.
    patient : ndarray of str, shape (n,)
        Whose it is, with the scanner.
    dataset : ndarray of str, shape (n,)
        Its data set.
    seed : int
        Where randomness comes from.
    stain : float
        Strength of the changes of stain and colour (`change_stains`).
    styles : dict of str to StainStatistics
        Stain densities of each patient, which `stain_transfer` gives to another's crops.
    """

    crops: NDArray[np.uint8]
    target: NDArray[np.float64]
    kind: NDArray[np.uint8]
    patient: NDArray[np.str_]
    dataset: NDArray[np.str_]
    seed: int
    stain: float = 1.0
    styles: dict[str, StainStatistics] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Candidates, seed: int, stain: float = 1.0) -> CropSampler:
        """Return a sampler of candidates; a patient on two scanners counts as two.

        Parameters
        ----------
        found : Candidates
            What to draw from.
        seed : int
            Of the random numbers.
        stain : float
            Strength of the changes of stain and colour.

        Returns
        -------
        CropSampler
            The sampler.
        """
        whose = np.char.add(np.char.add(found.patient, "|"), found.scanner)
        return cls(found.crops, found.target, found.kind, whose, found.dataset, seed, stain)

    def __post_init__(self) -> None:
        """Measure each patient's stain."""
        rng = np.random.default_rng(self.seed)
        for p in np.unique(self.patient):
            if str(p) in self.styles:
                continue
            own = np.nonzero(self.patient == p)[0]
            chosen = rng.permutation(own)[:_STYLE_CROPS]
            self.styles[str(p)] = _style(self.crops[chosen])

    def weights(self, difficulty: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the chance of each candidate to be drawn: by kind, then by the root of its patient's number, then by difficulty.

        Mitoses are drawn from each data set as often as its other candidates are. Else a data set of mitoses alone would teach
        that whatever looks like its images is one.

        Parameters
        ----------
        difficulty : ndarray of float, shape (n,), optional
            How wrong the network is on each, 0 to 1.

        Returns
        -------
        ndarray of float, shape (n,)
            Their sum is 1.
        """
        out = np.zeros(len(self.target))
        for kind, share in SHARES.items():
            of = self.kind == kind
            if kind != MITOSIS and of.any():
                hard = np.ones(of.sum()) if difficulty is None else 0.15 + difficulty[of]
                out[of] = share * self._by_patient(of, hard)
        mitoses = self.kind == MITOSIS
        names, dataset = np.unique(self.dataset, return_inverse=True)
        with_mitoses = np.bincount(dataset[mitoses], minlength=len(names)) > 0
        others = np.where(with_mitoses, np.bincount(dataset, out, len(names)), 0)
        if mitoses.any() and not others.any():
            out[mitoses] = SHARES[MITOSIS] * self._by_patient(mitoses, np.ones(mitoses.sum()))
        for k in np.flatnonzero(others):
            of = mitoses & (dataset == k)
            out[of] = SHARES[MITOSIS] * others[k] / others.sum() * self._by_patient(of, np.ones(of.sum()))
        return np.asarray(out / out.sum(), np.float64)

    def _by_patient(self, of: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights of some candidates whose sum is 1, and a patient's in all is by the root of its number."""
        _, inverse = np.unique(self.patient[of], return_inverse=True)
        w = weights / np.bincount(inverse, weights)[inverse] * np.sqrt(np.bincount(inverse))[inverse]
        return np.asarray(w / w.sum(), np.float64)

    def draw(self, step: int, size: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return which candidates a step's batch is of.

        Parameters
        ----------
        step : int
            Part of the seed.
        size : int
            How many.
        weights : ndarray of float, shape (n,)
            Chance of each candidate.

        Returns
        -------
        ndarray of int64, shape (size,)
            Indices.
        """
        rng = np.random.default_rng([self.seed, step])
        return rng.choice(len(weights), size, p=weights)

    def made(self, step: int, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a step's images and targets.

        Parameters
        ----------
        step : int
            Part of the seed.
        chosen : ndarray of int64, shape (n,)
            What `draw` returned.

        Returns
        -------
        images : ndarray of float32, shape (n, 3, 64, 64)
            RGB in [-1, 1].
        targets : ndarray of float32, shape (n,)
            Probabilities.
        """
        rng = np.random.default_rng([self.seed, step, 1])
        names = list(self.styles)
        images = np.stack([self._one(int(k), names, rng) for k in chosen])
        return batch_input(images, self.stain, rng), self.target[chosen].astype(np.float32)

    def _one(self, k: int, names: Sequence[str], rng: np.random.Generator) -> NDArray[np.uint8]:
        out = changed_crop(self.crops[k], rng)
        if rng.random() < 0.6:
            wanted = self.styles[names[int(rng.integers(len(names)))]]
            out = transfer_stain(out, self.styles[str(self.patient[k])], wanted)
        return out


def changed_crop(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a candidate's surroundings as the classifier may see them: turned, scaled, moved, blurred, compressed.

    Parameters
    ----------
    crop : ndarray of uint8, shape (128, 128, 3)
        RGB.
    rng : Generator
        Where randomness comes from.

    Returns
    -------
    ndarray of uint8, shape (64, 64, 3)
        RGB.
    """
    left = top = 0
    if rng.random() < 0.35:
        crop = _as_stored(crop, rng)
    if rng.random() < 0.25:  # an image's border, beyond which it is mirrored
        left, right = _border(rng)
        top, bottom = _border(rng)
        crop = crop[top:bottom, left:right]
    angle, mirror = rng.uniform(0, 2 * math.pi), rng.choice((-1.0, 1.0))
    scale = INPUT_PX / FIELD_PX * math.exp(rng.uniform(math.log(0.82), math.log(1.22)))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    turn = np.array([[cos, -sin * mirror], [sin, cos * mirror]])
    middle = np.array([CROP_PX / 2 - 0.5 - left, CROP_PX / 2 - 0.5 - top])
    shift = INPUT_PX / 2 - 0.5 + np.clip(rng.normal(0, 2.5, 2), -6, 6) - turn @ middle
    out = cv2.warpAffine(
        crop, np.hstack([turn, shift[:, None]]), (INPUT_PX, INPUT_PX),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    return _degraded(np.asarray(out, np.uint8), rng)


def _border(rng: np.random.Generator) -> tuple[int, int]:
    """Return begin and end of what is left of a side when an image ends near the middle, on one side or on none."""
    at = int(rng.integers(8, CROP_PX // 2))
    return ((0, CROP_PX), (CROP_PX // 2 - at, CROP_PX), (0, CROP_PX // 2 + at))[int(rng.integers(3))]


def _as_stored(crop: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    if rng.random() < 0.3:
        crop = soften_colours(np.ascontiguousarray(crop), rng.uniform(0.5, 2.5))
    return compressed(np.ascontiguousarray(crop), int(rng.integers(50, 96)), SUBSAMPLED)


def _degraded(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    kind = rng.random()
    if kind < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3)), np.uint8)
    elif kind < 0.3:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.5)).astype(np.float32)
        amount = rng.uniform(0.3, 1.2)
        image = np.clip((1 + amount) * image.astype(np.float32) - amount * soft, 0, 255).astype(np.uint8)
    elif kind < 0.38:
        small = cv2.resize(image, None, fx=(f := rng.uniform(0.55, 0.85)), fy=f, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(1, 5), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def _style(crops: NDArray[np.uint8]) -> StainStatistics:
    optical = optical_density(crops[:, ::5, ::5].astype(np.float32))
    tissue = optical[(optical.sum(axis=-1) > TISSUE_DENSITY) & (optical.sum(axis=-1) < 6)]
    density = tissue @ UNMIX if len(tissue) else np.zeros((1, 3), np.float32)
    return statistics_of(density)
