"""A model on images that are not slides: the same grid, blending and objects as on slides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry
from minugan_training.data.labels import IGNORE, MITOSES, Sample, enlargement, load_sample, mitosis_truth
from wsi_minugan.config import PATCH_PX
from wsi_minugan.geometry import UM2_PER_MM2, Box
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.segmentation.blend import blended_image
from wsi_minugan.segmentation.classes import Thresholds, class_map
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.segmentation.objects import ObjectCut, centroids_of, measure_objects
from wsi_minugan.segmentation.run_lengths import run_length_mask


class Scorer(Protocol):
    """What scores patches: a `Predictor`, or what stands before one."""

    @property
    def bundle(self) -> Bundle:
        """The model, whose card says how many patches it sees at once.

        Returns
        -------
        Bundle
            With its card.
        """

    @property
    def windows_at_once(self) -> int:
        """How many squares of patches are scored at a time.

        Returns
        -------
        int
            1 or more.
        """

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return scores ``(n, 3, s, s)`` of patches ``(n, s, s, 3)``.

        Parameters
        ----------
        patches : ndarray of uint8, shape (n, s, s, 3)
            RGB at the model's resolution.
        """


def score_image(predictor: Scorer, image: NDArray[np.uint8], stride_px: int = 192) -> NDArray[np.uint8]:
    """Return the blended scores of an image at the model's resolution.

    Parameters
    ----------
    predictor : Scorer
        The model.
    image : ndarray of uint8, shape (h, w, 3)
        RGB; white around it, as around a slide.
    stride_px : int
        Distance of patches.

    Returns
    -------
    ndarray of uint8, shape (3, h, w)
        255 times the scores of nucleus, mitosis, boundary.
    """
    height, width = image.shape[:2]
    grid = PatchGrid.of_windows(height, width, stride_px, predictor.bundle.card.patches_across)
    return blended_image(image, grid, predictor.windows_at_once, predictor.predict)


@dataclass(frozen=True)
class LabelledField:
    """An image, and what is known of its mitoses.

    Attributes
    ----------
    sample : Sample
        Image and label map.
    truth_px : ndarray of float, shape (n, 2)
        x, y of the mitoses; the centre of pixel 0 is at 0.5.
    unknown : ndarray of bool, shape (h, w)
        Where nothing is known of mitoses.
    """

    sample: Sample
    truth_px: NDArray[np.float64]
    unknown: NDArray[np.bool_]

    @property
    def area_mm2(self) -> float:
        """Area of which mitoses are known.

        Returns
        -------
        float
            mm2.
        """
        return float((~self.unknown).sum()) * self.sample.mpp**2 / UM2_PER_MM2


def load_field(root: Path, entry: Entry, jpeg: int | None = None) -> LabelledField:
    """Read an image with known mitoses.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.
    jpeg : int, optional
        Quality at which it is compressed first.

    Returns
    -------
    LabelledField
        Image, mitoses, and where nothing is known.
    """
    sample = load_sample(root, entry, jpeg)
    unknown = sample.labels[..., MITOSES] == IGNORE
    return LabelledField(sample, mitosis_truth(root, entry, sample), unknown)


def full_fields(entries: Sequence[Entry]) -> list[Entry]:
    """Return the images where every mitosis, and so every negative, is known, and that are larger than a patch.

    Parameters
    ----------
    entries : sequence of Entry
        The index.

    Returns
    -------
    list of Entry
        In the same order.
    """
    return [e for e in entries if _is_field(e)]


def patches_among(entries: Sequence[Entry]) -> list[Entry]:
    """Return the images with known mitoses that are neither crops nor full fields, such as the paper's patches of 256 px.

    Parameters
    ----------
    entries : sequence of Entry
        The index.

    Returns
    -------
    list of Entry
        In the same order.
    """
    return [e for e in entries if e.mitoses != "unknown" and not (_is_field(e) or _is_crop(e))]


def crops_of(entries: Sequence[Entry]) -> list[Entry]:
    """Return the images smaller than a patch, with known mitoses.

    Parameters
    ----------
    entries : sequence of Entry
        The index.

    Returns
    -------
    list of Entry
        In the same order.
    """
    return [e for e in entries if _is_crop(e)]


def _is_field(e: Entry) -> bool:
    return e.mitoses != "unknown" and min(_sides_px(e)) >= 2 * PATCH_PX


def _is_crop(e: Entry) -> bool:
    return e.mitoses == "known" and max(_sides_px(e)) < PATCH_PX


def _sides_px(e: Entry) -> tuple[int, int]:
    """Return width and height at the model's resolution, at which patches are cut."""
    factor = enlargement(e.mpp)
    return round(e.width_px * factor), round(e.height_px * factor)


def scored_crops(
    predictor: Predictor, root: Path, entries: Sequence[Entry], jpeg: int | None = None
) -> Iterator[tuple[Entry, Sample, NDArray[np.uint8]]]:
    """Yield crops with their scores ``(3, h, w)``, predicted in the middle of a patch that continues them by reflection.

    Parameters
    ----------
    predictor : Predictor
        The model.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The crops.
    jpeg : int, optional
        Quality at which images are compressed first.

    Yields
    ------
    tuple
        Entry, sample, and 255 times the scores.
    """
    for start in range(0, len(entries), predictor.batch_size):
        part = entries[start : start + predictor.batch_size]
        samples = [load_sample(root, e, jpeg) for e in part]
        scores = predictor.predict(np.stack([_padded(s.image) for s in samples]))
        for entry, sample, score in zip(part, samples, scores, strict=True):
            yield entry, sample, np.ascontiguousarray(_unpadded(score, sample.image.shape))


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    h, w = image.shape[:2]
    top, left = (PATCH_PX - h) // 2, (PATCH_PX - w) // 2
    return np.pad(image, ((top, PATCH_PX - h - top), (left, PATCH_PX - w - left), (0, 0)), mode="symmetric")


def _unpadded(scores: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    top, left = (PATCH_PX - shape[0]) // 2, (PATCH_PX - shape[1]) // 2
    return scores[:, top : top + shape[0], left : left + shape[1]]


@dataclass(frozen=True)
class Candidates:
    """Objects that a pixel threshold yields, before the cuts on area and peak.

    Attributes
    ----------
    xy_px : ndarray of float, shape (n, 2)
        Centroids; the centre of pixel 0 is at 0.5.
    area_px, peak : ndarray, shape (n,)
        Area, and largest score (0 to 255).
    """

    xy_px: NDArray[np.float64]
    area_px: NDArray[np.int64]
    peak: NDArray[np.int64]

    def kept(self, cut: ObjectCut) -> Candidates:
        """Return those that a slide would keep.

        Parameters
        ----------
        cut : ObjectCut
            Least area and least peak.

        Returns
        -------
        Candidates
            In the same order.
        """
        return self._chosen(cut.keeps(self.area_px, self.peak))

    def where_known(self, unknown: NDArray[np.bool_]) -> Candidates:
        """Return those whose centroids do not lie where nothing is known, by a mask ``(h, w)``.

        Parameters
        ----------
        unknown : ndarray of bool, shape (h, w)
            Where nothing is known.

        Returns
        -------
        Candidates
            In the same order.
        """
        (h, w), at = unknown.shape, self.xy_px.astype(int)
        return self._chosen(~unknown[np.clip(at[:, 1], 0, h - 1), np.clip(at[:, 0], 0, w - 1)])

    def _chosen(self, good: NDArray[np.bool_]) -> Candidates:
        return Candidates(self.xy_px[good], self.area_px[good], self.peak[good])


def mitosis_candidates(scores: NDArray[np.uint8], cut: Thresholds) -> Candidates:
    """Return the mitoses of an image's scores; as on slides.

    Parameters
    ----------
    scores : ndarray of uint8, shape (3, h, w)
        255 times the scores.
    cut : Thresholds
        Thresholds of the channels.

    Returns
    -------
    Candidates
        Before small and weak ones are dropped.
    """
    classes = class_map(scores, cut)
    box = Box(0, 0, *classes.shape)
    table = measure_objects(run_length_mask(classes == 2), scores[1], box).table
    return Candidates(centroids_of(table), table["area_px"], table["peak"])
