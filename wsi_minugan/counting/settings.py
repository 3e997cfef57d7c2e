"""How to count, and what is known of the slide and the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.counting.interval import PatientCounts
from wsi_minugan.counting.regions import TissueRaster

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How to count.

    Attributes
    ----------
    shape : {"circle", "rectangle"}
        Shape of the hot spot. Its area is given where it is used.
    aspect : float
        Width of the rectangle over its height.
    min_tissue : float
        Least share of the hot spot that must have been analysed, 0 to 1.
    hotspots : int
        How many hot spots to look for at most. They do not overlap.
    fields : {"free", "adjacent"} or None
        How the ten high-power fields lie: anywhere, or each touching another. None places none.
    fields_s : float or None
        Seconds of processor time after which no better fields are looked for. None for the usual ones.
    """

    shape: Literal["circle", "rectangle"] = "circle"
    aspect: float = 4 / 3
    min_tissue: float = 0.0
    hotspots: int = 1
    fields: Literal["adjacent", "free"] | None = "free"
    fields_s: float | None = None


@dataclass(frozen=True)
class Reliability:
    """What the model's card says of its errors, or why nothing is known.

    Attributes
    ----------
    operating_point : str
        Name of the operating point that the errors were measured at.
    patients : tuple of PatientCounts
        The model's errors on each patient that it was tested on. Empty where they are not known.
    reader_f1 : float or None
        F1 of single mitoses between two pathologists, 0 to 1. None where not measured.
    calibrated : bool
        Whether the mitoses' scores are probabilities.
    why_not : str
        Sentence that says why no errors are known. It goes into ``count.json``.
    """

    operating_point: str = ""
    patients: tuple[PatientCounts, ...] = ()
    reader_f1: float | None = None
    calibrated: bool = False
    why_not: str = (
        "The model's card holds no precision and recall by patient, so the true number cannot be bounded."
    )


NO_MODEL = Reliability(why_not="No model is known for these mitoses, so the true number cannot be bounded.")


@dataclass(frozen=True)
class Ground:
    """What is known of the slide under the mitoses.

    Attributes
    ----------
    tissue : TissueRaster, optional
        What was analysed.
    scores : ndarray of float, shape (n,), optional
        The mitoses' peak scores, 0 to 1.
    regions : mapping of str to shapely geometry
        Regions that were drawn, less what is excluded, level-0 px; mitoses outside of all of them are left out before.
    reliability : Reliability
        The model's errors.
    """

    tissue: TissueRaster | None = None
    scores: FloatArray | None = None
    regions: Mapping[str, shapely.Geometry] = field(default_factory=dict)
    reliability: Reliability = NO_MODEL


def method_in_words(area_mm2: float, diameter_mm: float, options: Options) -> str:
    """Say how a count is made.

    Parameters
    ----------
    area_mm2 : float
        Area of the hot spot, mm2.
    diameter_mm : float
        Diameter of a high-power field, mm.
    options : Options
        How to count.

    Returns
    -------
    str
        Sentences for ``count.json`` and the report.
    """
    shape = (
        "circle" if options.shape == "circle" else f"rectangle ({options.aspect:.3g} times as wide as high)"
    )
    return (
        f"Mitoses are counted by their centroids. The hot spot is the {shape} of {area_mm2:.3f} mm2 that holds the most of them"
        f"{_search(options)}; of equal counts the one with more analysed tissue is taken, then the smallest (y, x). "
        f"The ten fields are circles of {diameter_mm:g} mm that do not overlap, {_fields_search(options)}. "
        f"The Nottingham score is that of the hot spot's count brought to ten fields of {diameter_mm:g} mm diameter and rounded; "
        "TUPAC16's that of the count brought to 2 mm2; neither is given where less than half of the hot spot was analysed. "
        "Areas of high-power fields differ between microscopes: compare mitoses per mm2."
    )


def _search(options: Options) -> str:
    """Say how the hot spot was looked for."""
    centred = "the smallest circle around" if options.shape == "circle" else "the box around"
    exact = f"no placement of the {options.shape} holds more (critical positions, not a raster). It is centred on {centred} its mitoses"
    if not options.min_tissue:
        return f"; {exact}"
    return (
        f" among those with {100 * options.min_tissue:.0f} % of analysed tissue or more, or with the most that any place has. "
        f"Where the best of all places has as much tissue, {exact}; else the places are the tissue mask's cells of 8 um"
    )


def _fields_search(options: Options) -> str:
    """Say how the fields were looked for."""
    if options.fields == "adjacent":
        return "each touching another, grown for the highest total (beam search)"
    return "chosen for the highest total (integer program)"
