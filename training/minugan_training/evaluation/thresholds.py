"""Tuning a model's thresholds on the split "val": full fields with all their negatives decide."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry
from minugan_training.data.labels import (
    BOUNDARY,
    NUCLEI,
    Sample,
    load_sample,
    mitosis_truth,
)
from minugan_training.evaluation.detect import (
    Candidates,
    crops_of,
    full_fields,
    load_field,
    mitosis_candidates,
    score_image,
    scored_crops,
)
from minugan_training.evaluation.matching import match
from minugan_training.evaluation.metrics import Detections, dice, pooled
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.segmentation.classes import NUCLEUS, Thresholds, class_map
from wsi_minugan.segmentation.objects import object_cut, without_dropped

PIXEL_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.87, 0.9, 0.92, 0.94, 0.96)
PEAKS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98)
NUCLEUS_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
AREAS_UM2 = (8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0)


@dataclass(frozen=True)
class Setting:
    """One setting of the thresholds, and what it finds on the fields of the split "val".

    Attributes
    ----------
    mitosis, peak, min_area_um2 : float
        Thresholds of pixels, of an object's peak, and of its area.
    found : Detections
        Pooled counts on full fields.
    crop_recall : float or None
        Recall on the crops, from other laboratories; None where there are none.
    """

    mitosis: float
    peak: float
    min_area_um2: float
    found: Detections
    crop_recall: float | None = None


@dataclass(frozen=True)
class _Field:
    scores: NDArray[np.uint8]
    truth: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    mpp: float
    area_mm2: float


def tune_thresholds(
    predictor: Predictor, root: Path, entries: Sequence[Entry], radius_um: float, jpeg: int | None = None
) -> list[Setting]:
    """Return every setting tried, best F1 first; of equals the one with fewer false positives.

    Parameters
    ----------
    predictor : Predictor
        The model.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Full fields of the "val" split are used, no others.
    radius_um : float
        Greatest distance of a match.
    jpeg : int, optional
        Quality at which images are compressed first.

    Returns
    -------
    list of Setting
        Thresholds with what they reach.

    Raises
    ------
    DataError
        If there are none.
    """
    part = [e for e in entries if e.split == "val"]
    wanted = full_fields(part)
    if not wanted:
        raise DataError("The index has no full fields in the split 'val' to tune on.")
    fields = [_field(predictor, root, e, jpeg) for e in wanted]
    crops = [_crop(root, *c) for c in scored_crops(predictor, root, crops_of(part), jpeg)]
    choices = []
    for cut in PIXEL_THRESHOLDS:
        on_fields, on_crops = ([(f, _candidates(f, cut)) for f in images] for images in (fields, crops))
        for peak, area in itertools.product((p for p in PEAKS if p >= cut), AREAS_UM2):
            counts, recalled = (
                pooled([_count(f, c, peak, area, radius_um) for f, c in pairs])
                for pairs in (on_fields, on_crops)
            )
            choices.append(Setting(cut, peak, area, counts, recalled.recall if crops else None))
    return sorted(choices, key=lambda c: (-c.found.f1, c.found.fp))


def recalling(choices: Sequence[Setting], least: float) -> list[Setting]:
    """Return the settings that recall enough of the crops, in order.

    Parameters
    ----------
    choices : sequence of Setting
        What `tune_thresholds` returns.
    least : float
        Least recall of the crops, 0 to 1.

    Returns
    -------
    list of Setting
        Never empty.

    Raises
    ------
    DataError
        If there are none.
    """
    found = [c for c in choices if (c.crop_recall or 0.0) >= least]
    if not found:
        best = max((c.crop_recall or 0.0 for c in choices), default=0.0)
        raise DataError(
            f"No setting recalls {least:g} of the crops; the highest is {best:.3f}. Ask for less with --crop-recall."
        )
    return found


def tune_nuclei(
    predictor: Predictor,
    root: Path,
    entries: Sequence[Entry],
    jpeg: int | None = None,
    min_area_um2: float = 0.0,
) -> list[tuple[float, float]]:
    """Return every cut on the nuclei's scores with the mean Dice it reaches, best first.

    Parameters
    ----------
    predictor : Predictor
        The model.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Images with labelled nuclei of the "train" split are used, no others: no set of nuclei is there to choose on alone.
    jpeg : int, optional
        Quality at which images are compressed first.
    min_area_um2 : float
        Least area of a nucleus, as on the card.

    Returns
    -------
    list of tuple of float
        Threshold, Dice.
    """
    wanted = [e for e in entries if e.split == "train" and e.nuclei == "known"]
    found = defaultdict(list)
    for sample in (load_sample(root, e, jpeg) for e in wanted):
        scores = score_image(predictor, sample.image)
        # A boundary parts two nuclei, and belongs to both.
        truth = (sample.labels[..., NUCLEI] == 1) | (sample.labels[..., BOUNDARY] == 1)
        kept = {NUCLEUS: object_cut(min_area_um2, 0.0, sample.mpp)}
        for cut in NUCLEUS_THRESHOLDS:
            classes = without_dropped(class_map(scores, Thresholds(1.0, cut, 0.5)), scores[1], kept)
            found[cut].append(dice(classes > 0, truth))
    means = [(cut, float(np.mean(values))) for cut, values in found.items()]
    return sorted(means, key=lambda m: -m[1])


def _candidates(field: _Field, cut: float) -> Candidates:
    return mitosis_candidates(field.scores, Thresholds(cut, 0.5, 0.5))


def _crop(root: Path, entry: Entry, sample: Sample, scores: NDArray[np.uint8]) -> _Field:
    unknown = np.zeros(sample.image.shape[:2], bool)
    return _Field(scores, mitosis_truth(root, entry, sample), unknown, sample.mpp, 0.0)


def _field(predictor: Predictor, root: Path, entry: Entry, jpeg: int | None) -> _Field:
    f = load_field(root, entry, jpeg)
    return _Field(score_image(predictor, f.sample.image), f.truth_px, f.unknown, f.sample.mpp, f.area_mm2)


def _count(
    field: _Field, found: Candidates, peak: float, min_area_um2: float, radius_um: float
) -> Detections:
    kept = found.kept(object_cut(min_area_um2, peak, field.mpp)).where_known(field.unknown)
    m = match(kept.xy_px, field.truth, radius_um / field.mpp)
    return Detections(len(m.pairs), len(m.false_positives), len(m.false_negatives), field.area_mm2)
