"""A model's candidates on whole fields, by patient; what calibrates its scores and sets its operating points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from minugan_training.data.index import Entry
from minugan_training.data.labels import BOUNDARY, MITOSES
from minugan_training.data.stain import Slide
from minugan_training.evaluation.calibration import (
    Calibration,
    PatientCandidates,
    best_threshold,
    expected_calibration_error,
    f1_at,
    fit_calibration,
    froc,
    leave_one_out,
)
from minugan_training.evaluation.detect import (
    LabelledField,
    full_fields,
    load_field,
    mitosis_candidates,
    score_image,
)
from minugan_training.evaluation.matching import match
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.card import ModelCard, PatientFigures, logit_of
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.minugan.stain import StainMap
from wsi_minugan.segmentation.classes import Thresholds
from wsi_minugan.segmentation.objects import object_cut

_NEAR_PX = 10
_FACTOR, _ADDED = 0.25, 1.0
"""What is done to the classifiers' logits while they are measured. Scores are bytes, and what is below the card's cut is no candidate:
so logits from -9 to 20 can be told apart, and all of them count."""
SENSITIVE_BETA, SPECIFIC_BETA = 2.0, 1 / 3
"""Of the F-score that the named operating points maximise: recall counts twice as much as precision, or a third as much."""


class PointFigures(PatientFigures):
    """One patient's figures at an operating point, on one scanner.

    Recall at 1, 2, 5 and 10 false positives a mm2 is that of the best threshold for each.

    Attributes
    ----------
    truths : int
        Labelled mitoses, found or not.
    f1 : float
        At the operating point's threshold.
    false_positives_per_mm2 : float
        At the same threshold.
    froc : dict of str to float
        Recall by false positives a mm2.
    left_out_threshold, left_out_f1 : float or None
        The threshold that the other patients choose, and the F1 at it.
    """

    truths: int
    f1: float
    false_positives_per_mm2: float
    froc: dict[str, float]
    left_out_threshold: float | None = None
    left_out_f1: float | None = None


class OperatingPoints(BaseModel):
    """What `minugan-train calibrate` finds.

    Attributes
    ----------
    weight, first_stage_weight, bias : float
        The calibration: weights of the two stages' logits, and what is added.
    points : dict of str to float
        Threshold of the calibrated probability by operating point.
    mean_f1, left_out_mean_f1 : float
        Mean over patients, at the common threshold, and at the one that the others choose.
    radius_um : float
        Greatest distance of a match.
    expected_calibration_error : float
        0 to 1; Naeini et al. 2015.
    patients : dict of str to list of PointFigures
        By operating point.
    """

    model_config = ConfigDict(frozen=True)

    weight: float
    first_stage_weight: float
    bias: float
    points: dict[str, float]
    mean_f1: float
    left_out_mean_f1: float
    radius_um: float
    expected_calibration_error: float
    patients: dict[str, list[PointFigures]]


@dataclass(frozen=True)
class _Group:
    """Candidates of a patient on a scanner."""

    patient: str
    scanner: str
    found: PatientCandidates


def measured_groups(
    bundle: Bundle,
    root: Path,
    entries: Sequence[Entry],
    radius_um: float,
    stains: Mapping[Slide, StainMap] | None = None,
    load: Callable[[Path, Entry], LabelledField] = load_field,
) -> list[_Group]:
    """Return the candidates of each patient and scanner on whole fields.

    Parameters
    ----------
    bundle : Bundle
        The model; the logits of its classifiers and of its generator are what is calibrated, whatever its card says.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index; whole fields with known mitoses are used.
    radius_um : float
        Greatest distance of a match.
    stains : mapping of tuple of str to StainMap, optional
        What is done to the stain of each patient on each scanner first; of `slide_maps`.
    load : callable
        Reads the field of an entry below `root`; others than `load_field` change the image.

    Returns
    -------
    list
        One for each patient and scanner.

    Raises
    ------
    DataError
        If there are no whole fields.
    """
    wanted = full_fields(entries)
    if not wanted:
        raise DataError("The index has no whole fields with known mitoses in these splits.")
    predictor = Predictor(_uncalibrated(bundle), precision="fp32")  # does not depend on the machine
    t = bundle.card.thresholds
    cut = Thresholds(t.mitosis, t.nucleus, t.boundary)
    parts: dict[tuple[str, str], list[PatientCandidates]] = defaultdict(list)
    for entry in wanted:
        seen = _Features(predictor, (stains or {}).get((entry.patient, entry.scanner)))
        found = _of_field(seen, load(root, entry), cut, t.mitosis_min_area_um2, radius_um)
        parts[entry.patient, entry.scanner].append(found)
    return [_Group(p, s, joined(found)) for (p, s), found in sorted(parts.items())]


def _of_field(
    predictor: _Features, field: LabelledField, cut: Thresholds, min_area_um2: float, radius_um: float
) -> PatientCandidates:
    mpp = field.sample.mpp
    scores = score_image(predictor, field.sample.image)
    least = object_cut(min_area_um2, 0.0, mpp)
    found = mitosis_candidates(scores, cut).kept(least).where_known(field.unknown)
    first = [_highest(scores[BOUNDARY], x, y) for x, y in found.xy_px.tolist()]
    hit = np.zeros(len(found.xy_px), bool)
    hit[match(found.xy_px, field.truth_px, radius_um / mpp).pairs[:, 0]] = True
    peaks = zip(found.peak.tolist(), first, strict=True)
    logits = np.array([[logit_of(v / 255) for v in pair] for pair in peaks]).reshape(-1, 2)
    if predictor.predictor.second_stage is not None:
        logits[:, 0] = [measured_logit(v) for v in found.peak.tolist()]
    return PatientCandidates(logits, hit, len(field.truth_px), field.area_mm2)


@dataclass(frozen=True)
class _Features:
    """The classifiers' own scores as those of mitoses, and the generator's in place of the boundary's, which is not needed."""

    predictor: Predictor
    stain: StainMap | None

    @property
    def bundle(self) -> Bundle:
        return self.predictor.bundle

    @property
    def windows_at_once(self) -> int:
        return self.predictor.windows_at_once

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.stain is not None:
            patches = self.predictor.restained(patches, self.stain)
        out = self.predictor.first_stage(patches)
        first = out[:, MITOSES].copy()
        if self.predictor.second_stage is not None:
            self.predictor.second_stage.judge(patches, out)
        out[:, BOUNDARY] = first
        return out


def measured_logit(score: int) -> float:
    """Return the classifiers' logit that a score was made of while they are measured.

    Parameters
    ----------
    score : int
        0 to 255.

    Returns
    -------
    float
        Mean logit, as near as a byte tells.
    """
    return (logit_of(score / 255) - _ADDED) / _FACTOR


def _highest(scores: NDArray[np.uint8], x: float, y: float) -> int:
    """Return the highest score near a place."""
    top, left = max(0, int(y) - _NEAR_PX), max(0, int(x) - _NEAR_PX)
    near = cv2.GaussianBlur(scores[top : int(y) + _NEAR_PX + 1, left : int(x) + _NEAR_PX + 1], (5, 5), 1.0)
    return int(near.max())


def joined(parts: Sequence[PatientCandidates]) -> PatientCandidates:
    """Return the candidates of several fields or scanners as one patient's.

    Parameters
    ----------
    parts : sequence of PatientCandidates
        Of one patient.

    Returns
    -------
    PatientCandidates
        All of them.
    """
    return PatientCandidates(
        np.concatenate([p.logits for p in parts]),
        np.concatenate([p.hit for p in parts]),
        sum(p.truths for p in parts),
        sum(p.area_mm2 for p in parts),
    )


def operating_points(groups: Sequence[_Group], radius_um: float) -> OperatingPoints:
    """Calibrate scores and set operating points, with one voice for each patient.

    Parameters
    ----------
    groups : sequence
        What `measured_groups` returns.
    radius_um : float
        Greatest distance of a match that they were measured with.

    Returns
    -------
    OperatingPoints
        Calibration, thresholds, and figures by patient.
    """
    patients = {
        name: joined([g.found for g in groups if g.patient == name])
        for name in sorted({g.patient for g in groups})
    }
    calibration = fit_calibration(list(patients.values()))
    points = {
        "balanced": best_threshold(list(patients.values()), calibration),
        "sensitive": best_threshold(list(patients.values()), calibration, SENSITIVE_BETA),
        "specific": best_threshold(list(patients.values()), calibration, SPECIFIC_BETA),
    }
    left_out = leave_one_out(patients)
    told = [p for p in patients.values() if p.truths]
    f1 = [f1_at(p, calibration.probability(p.logits), points["balanced"]) for p in told]
    return OperatingPoints(
        weight=calibration.weights[0],
        first_stage_weight=calibration.weights[1],
        bias=calibration.bias,
        points=points,
        mean_f1=float(np.mean(f1)),
        left_out_mean_f1=float(np.mean([left_out[k][1] for k, p in patients.items() if p.truths])),
        radius_um=radius_um,
        expected_calibration_error=_mean_error(patients, calibration),
        patients={
            name: [_figures(g, calibration, threshold, left_out[g.patient]) for g in groups]
            for name, threshold in points.items()
        },
    )


def figures_on_card(groups: Sequence[_Group], card: ModelCard) -> list[PointFigures]:
    """Return figures by patient at a card's own calibration and balanced operating point, which nothing here chooses.

    Parameters
    ----------
    groups : sequence
        What `measured_groups` returns.
    card : ModelCard
        The model's card.

    Returns
    -------
    list of PointFigures
        One for each patient and scanner.
    """
    stage = card.candidate_stage
    of_card = (
        Calibration((1.0, 0.0), 0.0)
        if stage is None
        else Calibration((stage.weight, stage.first_stage_weight), stage.bias)
    )
    return [_figures(g, of_card, card.least_peak("balanced")) for g in groups]


def mean_f1(figures: Sequence[PointFigures]) -> float:
    """Return the mean F1 of the patients with mitoses; the scanners of a patient are one voice together.

    Parameters
    ----------
    figures : sequence of PointFigures
        By patient and scanner.

    Returns
    -------
    float
        0 to 1.
    """
    found: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    for f in figures:
        found[f.patient] += (f.true_positives, f.false_positives, f.truths)
    return float(np.mean([2 * tp / (tp + fp + truths) for tp, fp, truths in found.values() if truths]))


def _mean_error(patients: Mapping[str, PatientCandidates], calibration: Calibration) -> float:
    """Return the expected calibration error of all candidates, each patient's with one voice together."""
    told = [p for p in patients.values() if len(p.hit)]
    p = np.concatenate([calibration.probability(t.logits) for t in told])
    weight = np.concatenate([np.full(len(t.hit), 1 / len(t.hit)) for t in told])
    return expected_calibration_error(p, np.concatenate([t.hit for t in told]), weight)


def _figures(
    group: _Group,
    calibration: Calibration,
    threshold: float,
    left_out: tuple[float, float] | None = None,
) -> PointFigures:
    found = group.found
    p: NDArray[np.float64] = calibration.probability(found.logits)
    kept = p >= threshold
    tp, fp = int((kept & found.hit).sum()), int((kept & ~found.hit).sum())
    return PointFigures(
        patient=group.patient,
        scanner=group.scanner,
        truths=found.truths,
        true_positives=tp,
        false_positives=fp,
        false_negatives=found.truths - tp,
        area_mm2=round(found.area_mm2, 4),
        f1=round(f1_at(found, p, threshold), 4),
        false_positives_per_mm2=round(fp / found.area_mm2, 3),
        froc={f"{k:g}": round(v, 4) for k, v in froc(found, p).items()},
        left_out_threshold=left_out[0] if left_out else None,
        left_out_f1=round(left_out[1], 4) if left_out else None,
    )


def _uncalibrated(bundle: Bundle) -> Bundle:
    """Return a model whose second stage's scores are the classifiers' own, within what a byte can tell, to be calibrated."""
    stage = bundle.card.candidate_stage
    if stage is None:
        return bundle
    plain = stage.model_copy(update={"weight": _FACTOR, "first_stage_weight": 0.0, "bias": _ADDED})
    return replace(bundle, card=bundle.card.model_copy(update={"candidate_stage": plain}))
