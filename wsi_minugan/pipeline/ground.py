"""What a count stands on: the tissue's raster, regions that the user drew, and the model's measured errors."""

from __future__ import annotations

from wsi_minugan.config import RunSettings
from wsi_minugan.counting.interval import LEAST_PATIENTS, PatientCounts
from wsi_minugan.counting.regions import TissueRaster
from wsi_minugan.counting.settings import Options, Reliability
from wsi_minugan.minugan.card import ModelCard, OperatingPoint
from wsi_minugan.outputs.models import ErrorsOnPatient, ModelErrors
from wsi_minugan.pipeline.planning.slide_stain import StainSetting, stain_wish
from wsi_minugan.slides.tissue import TissueMask


def raster_of(tissue: TissueMask, frame_scale: float) -> TissueRaster:
    """Return a mask as the raster that counting takes, level-0 px.

    Parameters
    ----------
    tissue : TissueMask
        Cells in analysis px.
    frame_scale : float
        Level-0 pixels per analysis pixel.

    Returns
    -------
    TissueRaster
        The same cells.
    """
    s = frame_scale
    return TissueRaster(
        tissue.mask, tissue.px_per_cell * s, tissue.width_px * s, tissue.height_px * s, tissue.stained
    )


def options_of(settings: RunSettings) -> Options:
    """Return how the settings want mitoses to be counted.

    Parameters
    ----------
    settings : RunSettings
        The run's, or those of a recount.

    Returns
    -------
    Options
        For `count_mitoses`.
    """
    return Options(
        settings.hotspot_shape, settings.aspect_ratio, settings.min_tissue, settings.hotspots, settings.fields
    )


def reliability_of(
    card: ModelCard,
    mitosis_threshold: float | None,
    point: OperatingPoint = "balanced",
    stain: StainSetting = "auto",
) -> Reliability:
    """Return what a card says of the model's errors.

    Parameters
    ----------
    card : ModelCard
        The model's card.
    mitosis_threshold : float, optional
        The user's own; with it nothing is known.
    point : {"balanced", "sensitive", "specific"}
        The operating point.
    stain : {"auto", "none", "always"}
        Whether the slide's stain was moved; errors hold for what the card's switch says.

    Returns
    -------
    Reliability
        With the reason where nothing is known.
    """
    if mitosis_threshold is not None:
        return Reliability(
            why_not="The mitosis threshold was set by hand, and the model's errors were measured with the card's."
        )
    wish = stain_wish(card, stain)
    if wish is not None and wish.applied != wish.known.switched_on:
        return Reliability(
            why_not=f"The run was made with --stain {stain}, and the model's errors were measured with its card's own choice."
        )
    known = card.reliability
    if known is None:
        return Reliability()
    measured = known.operating_points.get(point)
    if measured is None:
        return Reliability(why_not=f"The model's errors were not measured at its operating point {point}.")
    if len(measured.patients) < LEAST_PATIENTS:
        return Reliability(
            why_not=f"The model's errors were measured on fewer than {LEAST_PATIENTS} patients, too few to see how they differ."
        )
    patients = tuple(
        PatientCounts(p.area_mm2, p.true_positives, p.false_positives, p.false_negatives)
        for p in measured.patients
    )
    # Scores of a second stage are probabilities.
    return Reliability(point, patients, known.reader_f1, card.candidate_stage is not None)


def errors_of(known: Reliability) -> ModelErrors:
    """Return the model's errors as a manifest holds them.

    Parameters
    ----------
    known : Reliability
        The model's errors.

    Returns
    -------
    ModelErrors
        Part of the manifest.
    """
    patients = tuple(
        ErrorsOnPatient(**{k: getattr(p, k) for k in ErrorsOnPatient.model_fields}) for p in known.patients
    )
    return ModelErrors(
        operating_point=known.operating_point,
        patients=patients,
        reader_f1=known.reader_f1,
        calibrated=known.calibrated,
        why_not="" if patients else known.why_not,
    )


def reliability_in(written: ModelErrors) -> Reliability:
    """Return what `errors_of` was made from.

    Parameters
    ----------
    written : ModelErrors
        Part of a manifest.

    Returns
    -------
    Reliability
        For `count_mitoses`.
    """
    patients = tuple(
        PatientCounts(p.area_mm2, p.true_positives, p.false_positives, p.false_negatives)
        for p in written.patients
    )
    return Reliability(
        written.operating_point, patients, written.reader_f1, written.calibrated, written.why_not
    )
