"""Scores of a network on single patches, as the paper gives them: Dice, and hits within a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from minugan_training.data.labels import IGNORE, MITOSES, NUCLEI, Sample
from minugan_training.evaluation.matching import match
from minugan_training.evaluation.metrics import dice
from minugan_training.sampling.augmentation import cut_patch
from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Augmentation, Experiment
from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS, Thresholds, class_map
from wsi_minugan.segmentation.objects import centroids_of, measure_objects
from wsi_minugan.segmentation.run_lengths import run_length_mask

WINDOW_PX = 25
"""A centroid this near to the truth's is a hit (paper, p. 4: a window of 25 px, about 7 um)."""

_PLAIN = Augmentation(rotate=False)
_CUT = Thresholds(0.5, 0.5, 0.5)


class PatchScore(BaseModel):
    """What a model that never saw a patch does on it; Dice is None where no expert outlined a class.

    Patches are chosen for their mitoses, so a network that takes a whole patch for one hits many: all that lie in its middle.
    `painted_tp` counts these. It is None in results of versions that did not count it.

    Attributes
    ----------
    fold : int
        The cross-validation's fold.
    dataset, scanner, patient, image : str
        As in the index.
    region_px : tuple of int
        x, y of the region's corner on the image.
    x_px, y_px : float
        The patch's middle, in the region's px.
    dice_mitoses, dice_nuclei : float or None
        Overlap with an expert's outlines.
    tp, fp, fn : int
        Mitoses found, wrongly found, and missed.
    painted_tp : int or None
        True positives of the whole patch taken for one mitosis.
    """

    model_config = ConfigDict(frozen=True)

    fold: int
    dataset: str
    scanner: str
    patient: str
    image: str
    region_px: tuple[int, int] = (0, 0)
    x_px: float
    y_px: float
    dice_mitoses: float | None
    dice_nuclei: float | None
    tp: int
    fp: int
    fn: int
    painted_tp: int | None = None


def score_patches(
    network: nn.Module, experiment: Experiment, pool: Pool, places: Sequence[Place], fold: int
) -> list[PatchScore]:
    """Return a network's scores on patches.

    Mitoses are compared by their outlines only where these are an expert's: an outline made from a centre is no truth to be
    measured against. A nucleus found counts as the paper's class does, without the mitoses; where nobody labelled mitoses, both count.

    Parameters
    ----------
    network : Module
        In eval mode.
    experiment : Experiment
        It has the patches' size.
    pool : Pool
        Samples.
    places : sequence of Place
        Middles of the patches.
    fold : int
        Noted with each.

    Returns
    -------
    list of PatchScore
        In the order of the places.
    """
    rows = []
    for k, image, labels in _cut(pool, places, experiment.patch_px):
        classes = classes_of(network, image)
        entry, place = pool.entries[places[k][0]], places[k]
        corner = np.array(place[1:]) - experiment.patch_px / 2
        truth = pool.mitosis_centres(place[0]) + 0.5 - corner
        counts = _hits(classes, labels, truth)
        painted_tp = _hits(np.full_like(classes, MITOSIS), labels, truth)[0]
        mitosis = classes == MITOSIS
        nucleus = (classes == NUCLEUS) | (mitosis & (labels[..., MITOSES] == IGNORE))
        rows.append(
            PatchScore(
                fold=fold, dataset=entry.dataset, scanner=entry.scanner, patient=entry.patient, image=entry.image,
                region_px=(entry.x_px, entry.y_px), x_px=place[1], y_px=place[2],
                tp=counts[0], fp=counts[1], fn=counts[2], painted_tp=painted_tp,
                dice_mitoses=_overlap(mitosis, labels[..., MITOSES]) if entry.outlined else None,
                dice_nuclei=_overlap(nucleus, labels[..., NUCLEI]) if entry.nuclei == "known" else None,
            )
        )  # fmt: skip
    return rows


def _cut(
    pool: Pool, places: Sequence[Place], size_px: int
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    for k, (index, x, y) in enumerate(places):
        sample: Sample = pool.sample(index)
        yield k, *cut_patch(sample, (x, y), size_px, _PLAIN, np.random.default_rng(0))


@torch.inference_mode()
def classes_of(network: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the classes of a patch ``(h, w, 3)``, cleaned as on slides.

    Parameters
    ----------
    network : Module
        In eval mode.
    image : ndarray of uint8, shape (h, w, 3)
        RGB.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        0 background, 1 nucleus, 2 mitosis.
    """
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 127.5 - 1
    scores = torch.sigmoid(2 * network.logits(x))[0]  # type: ignore[operator]
    return class_map((255 * scores).round().to(torch.uint8).numpy(), _CUT)


def _overlap(found: NDArray[np.bool_], truth: NDArray[np.uint8]) -> float | None:
    known = truth != IGNORE
    return dice(found & known, truth == 1) if known.any() else None


def _hits(
    classes: NDArray[np.uint8], labels: NDArray[np.uint8], truth: NDArray[np.float64]
) -> tuple[int, int, int]:
    """Return true positives, false positives and false negatives.

    Mitoses whose centres lie outside the patch need not be found, but what is found of them is not false.
    """
    found = _centres((classes == MITOSIS) & (labels[..., MITOSES] != IGNORE))
    matched = match(found, truth, WINDOW_PX)
    inside = ((truth >= 0) & (truth < classes.shape[0])).all(axis=1)
    hits = int(inside[matched.pairs[:, 1]].sum())
    return hits, len(matched.false_positives), int(inside.sum()) - hits


def _centres(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return centroids_of(
        measure_objects(run_length_mask(mask), mask.astype(np.uint8), Box(0, 0, *mask.shape)).table
    )
