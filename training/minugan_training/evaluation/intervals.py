"""A model's errors by patient, for its card; whether intervals made from them hold on patients that were left out; and a chart of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from minugan_training.data.index import Entry
from minugan_training.evaluation.detect import full_fields, load_field, mitosis_candidates, score_image
from minugan_training.evaluation.matching import match
from minugan_training.figures import new_figure, save_figure
from wsi_minugan.counting.interval import LEAST_PATIENTS, Found, PatientCounts, predict
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.card import MeasuredPoint, ModelReliability, OperatingPoint, PatientFigures
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.segmentation.classes import Thresholds
from wsi_minugan.segmentation.objects import object_cut

LEAST_COVERED = 0.9
_INSIDE, _OUTSIDE, _FOUND = "#0072b2", "#d55e00", "#777777"
"""Colours of the chart."""


class LeftOut(BaseModel):
    """One patient's true number, and its interval from all other patients' errors.

    Attributes
    ----------
    patient : str
        Whose.
    found, truths : int
        Mitoses that the model found, and that experts labelled.
    area_mm2 : float
        Area of the patient's fields.
    low, high : int
        Limits of the interval of the true number.
    """

    model_config = ConfigDict(frozen=True)

    patient: str
    found: int
    truths: int
    area_mm2: float
    low: int
    high: int

    @property
    def covered(self) -> bool:
        """Whether the interval holds the experts' number.

        Returns
        -------
        bool
            The limits belong to it.
        """
        return self.low <= self.truths <= self.high


def measure_errors(
    bundle: Bundle, root: Path, entries: Sequence[Entry], radius_um: float, reader_f1: float | None = None
) -> ModelReliability:
    """Return a model's errors on whole fields, by operating point and patient.

    Parameters
    ----------
    bundle : Bundle
        The model, with the thresholds and operating points of its card.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index; whole fields with known mitoses are used. The model should have seen none of their patients.
    radius_um : float
        Greatest distance of a match.
    reader_f1 : float, optional
        F1 of single mitoses between two readers, for the card.

    Returns
    -------
    ModelReliability
        For the model's card.

    Raises
    ------
    DataError
        If the fields are of too few patients.
    """
    wanted = full_fields(entries)
    patients = {e.patient for e in wanted}
    if len(patients) < LEAST_PATIENTS:
        raise DataError(
            f"These splits have whole fields with known mitoses of {len(patients)} patients; an interval needs {LEAST_PATIENTS}."
        )
    card = bundle.card
    points: dict[OperatingPoint, float] = {"balanced": card.thresholds.mitosis_peak, **card.operating_points}
    predictor = Predictor(bundle, precision="fp32")  # figures that do not depend on the machine
    parts: dict[OperatingPoint, list[PatientFigures]] = {p: [] for p in points}
    for entry in wanted:
        for name, figures in _of_field(bundle, predictor, root, entry, radius_um, points).items():
            parts[name].append(figures)
    measured = {name: MeasuredPoint(patients=by_patient(found)) for name, found in parts.items()}
    return ModelReliability(operating_points=measured, radius_um=radius_um, reader_f1=reader_f1)


def _of_field(
    bundle: Bundle,
    predictor: Predictor,
    root: Path,
    entry: Entry,
    radius_um: float,
    points: Mapping[OperatingPoint, float],
) -> dict[OperatingPoint, PatientFigures]:
    t, field = bundle.card.thresholds, load_field(root, entry)
    mpp = field.sample.mpp
    found = mitosis_candidates(
        score_image(predictor, field.sample.image), Thresholds(t.mitosis, t.nucleus, t.boundary)
    )
    out = {}
    for name, peak in points.items():
        cut = object_cut(t.mitosis_min_area_um2, peak, mpp)
        kept = found.kept(cut).where_known(field.unknown)
        matched = match(kept.xy_px, field.truth_px, radius_um / mpp)
        out[name] = PatientFigures(
            patient=entry.patient,
            scanner=entry.scanner,
            area_mm2=field.area_mm2,
            true_positives=len(matched.pairs),
            false_positives=len(matched.false_positives),
            false_negatives=len(matched.false_negatives),
        )
    return out


def by_patient(parts: Iterable[PatientFigures]) -> tuple[PatientFigures, ...]:
    """Return the figures of each patient's fields together, sorted by patient.

    Parameters
    ----------
    parts : iterable of PatientFigures
        Figures of fields, or of a patient on one scanner.

    Returns
    -------
    tuple of PatientFigures
        Each patient once.
    """
    found: dict[str, list[PatientFigures]] = defaultdict(list)
    for part in parts:
        found[part.patient].append(part)
    return tuple(_summed(f) for _, f in sorted(found.items()))


def _summed(parts: Sequence[PatientFigures]) -> PatientFigures:
    """Return the figures of a patient's fields together, whatever scanners they are from: each patient has one voice."""
    return PatientFigures(
        patient=parts[0].patient,
        scanner=", ".join(sorted({p.scanner for p in parts} - {""})),
        area_mm2=round(sum(p.area_mm2 for p in parts), 4),
        true_positives=sum(p.true_positives for p in parts),
        false_positives=sum(p.false_positives for p in parts),
        false_negatives=sum(p.false_negatives for p in parts),
    )


def leave_one_out(patients: Sequence[PatientFigures]) -> list[LeftOut]:
    """Return each patient's interval from all others' errors, over all of its fields.

    Parameters
    ----------
    patients : sequence of PatientFigures
        True and false positives, and what was missed, of each patient.

    Returns
    -------
    list of LeftOut
        In the same order.

    Raises
    ------
    DataError
        If there are too few patients.
    """
    if len(patients) <= LEAST_PATIENTS:
        raise DataError(
            f"{len(patients)} patients are too few to leave one out: {LEAST_PATIENTS + 1} are needed."
        )
    counts = [
        PatientCounts(p.area_mm2, p.true_positives, p.false_positives, p.false_negatives) for p in patients
    ]
    out = []
    for k, p in enumerate(patients):
        found = p.true_positives + p.false_positives
        low, high = predict(Found(found, p.area_mm2), counts[:k] + counts[k + 1 :]).interval()
        truths = p.true_positives + p.false_negatives
        out.append(
            LeftOut(patient=p.patient, found=found, truths=truths, area_mm2=p.area_mm2, low=low, high=high)
        )
    return out


def draw_intervals(path: Path, found: Sequence[LeftOut]) -> None:
    """Draw each patient's interval as a bar, the experts' number as a point, and what the model found as a line.

    The chart holds no pixels of slides.

    Parameters
    ----------
    path : Path
        PNG to write.
    found : sequence of LeftOut
        The patients, from the top downwards.
    """
    figure = new_figure(8, 1.2 + 0.32 * len(found))
    axes = figure.subplots()
    for row, f in enumerate(found):
        colour = _INSIDE if f.covered else _OUTSIDE
        axes.plot([f.low, f.high], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot([f.found], [row], "|", color=_FOUND, markersize=12)
        axes.plot([f.truths], [row], "o" if f.covered else "X", color=colour, markersize=7)
    axes.set_yticks(range(len(found)), [f"{f.patient} ({f.area_mm2:.1f} mm²)" for f in found])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-0.5, 1.2 * max([1, *(max(f.high, f.truths) for f in found)]))
    ticks = [n for n in (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= max([1, *(f.high for f in found)])]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xlabel("mitoses: 95 % interval (bar), experts (point), model (line)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
