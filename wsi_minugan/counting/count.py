"""A slide's count: all mitoses, the hot spot, and the scores; the content of count.json."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wsi_minugan.counting.hotspot import Hotspot, TissueFraction, find_hotspot
from wsi_minugan.counting.scores import nottingham_cuts, nottingham_score, tupac16_score
from wsi_minugan.errors import SettingsError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.geometry import UM2_PER_MM2

TUPAC16_AREA_MM2 = 2.0
LEAST_TISSUE_FRACTION = 0.5
"""Below it the hot spot's count stands for less than half the area that the scores' tables are made for, and no score is given: ten fields
full of such tissue would hold more than twice as many, which is what parts one score from the next (7 and 14 at 0.5 mm)."""


class HotspotCount(FrozenModel):
    """The hot spot, in level-0 pixels."""

    shape: Literal["circle"] = "circle"
    area_mm2: float = Field(gt=0)
    mitoses: int = Field(ge=0)
    mitoses_per_mm2: float = Field(ge=0)
    center_x_px: float | None = Field(description="None where there are no mitoses.")
    center_y_px: float | None
    radius_px: float = Field(gt=0)
    tissue_fraction: float | None = Field(
        description="Share of the circle that was analysed; None where not known."
    )


class Scores(FrozenModel):
    """Mitotic scores of the hot spot."""

    nottingham: int | None = Field(
        ge=1,
        le=3,
        description="None where no table covers the field diameter, and where the hot spot is mostly glass.",
    )
    nottingham_field_diameter_mm: float
    nottingham_cuts: tuple[int, int] | None = Field(description="Largest counts of score 1 and of score 2.")
    nottingham_count: float = Field(description="Hot spot's count, brought to ten fields of that diameter.")
    tupac16: int | None = Field(ge=1, le=3, description="None where the hot spot is mostly glass.")
    tupac16_count: float = Field(description="Hot spot's count, brought to 2 mm2.")


class Count(FrozenModel):
    """Content of count.json."""

    schema_version: Literal[1] = 1
    mpp: float = Field(gt=0, description="um per level-0 pixel.")
    mitoses: int = Field(ge=0)
    area_mm2: float | None = Field(description="Tissue analysed; None where not known.")
    mitoses_per_mm2: float | None
    hotspot: HotspotCount
    scores: Scores
    method: str
    warnings: tuple[str, ...] = Field((), description="Sentences on what makes this count less certain.")


def count_mitoses(
    points_px: NDArray[np.float64],
    mpp: float,
    hotspot_mm2: float,
    hpf_diameter_mm: float,
    area_mm2: float | None = None,
    tissue: TissueFraction | None = None,
) -> Count:
    """Count mitoses over all and in the hot spot.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    mpp : float
        um per level-0 pixel.
    hotspot_mm2 : float
        Area of the hot spot's circle.
    hpf_diameter_mm : float
        Diameter of a high-power field, for the Nottingham score.
    area_mm2 : float, optional
        Tissue analysed.
    tissue : callable, optional
        Share of a circle (level-0 px) that is tissue.
    """
    radius_px = circle_radius_px(hotspot_mm2, mpp)
    spot = find_hotspot(points_px, radius_px, tissue)
    n = len(points_px)
    counted = _hotspot(spot, hotspot_mm2, radius_px)
    share = _analysed_share(counted, area_mm2)
    return Count(
        mpp=mpp,
        mitoses=n,
        area_mm2=area_mm2,
        mitoses_per_mm2=n / area_mm2 if area_mm2 else None,
        hotspot=counted,
        scores=_scores(spot.mitoses if spot else 0, hotspot_mm2, hpf_diameter_mm, _is_mostly_glass(share)),
        method=_method(hotspot_mm2, hpf_diameter_mm),
        warnings=_warnings(counted, share),
    )


def circle_radius_px(area_mm2: float, mpp: float) -> float:
    """Return the radius in pixels of `mpp` of a circle of an area."""
    return math.sqrt(area_mm2 * UM2_PER_MM2 / math.pi) / mpp


def _hotspot(spot: Hotspot | None, area_mm2: float, radius_px: float) -> HotspotCount:
    return HotspotCount(
        area_mm2=area_mm2,
        mitoses=spot.mitoses if spot else 0,
        mitoses_per_mm2=spot.mitoses / area_mm2 if spot else 0.0,
        center_x_px=round(spot.center_x_px, 3) if spot else None,
        center_y_px=round(spot.center_y_px, 3) if spot else None,
        radius_px=radius_px,
        tissue_fraction=spot.tissue_fraction if spot else None,
    )


def _analysed_share(spot: HotspotCount, area_mm2: float | None) -> float | None:
    """Return which share of the hot spot was analysed; where no mitosis gives it a place, the most that any place can have."""
    if spot.tissue_fraction is not None or spot.mitoses or area_mm2 is None:
        return spot.tissue_fraction
    return min(1.0, area_mm2 / spot.area_mm2)


def _is_mostly_glass(share: float | None) -> bool:
    return share is not None and share < LEAST_TISSUE_FRACTION


def _warnings(spot: HotspotCount, share: float | None) -> tuple[str, ...]:
    if share is None or (share >= LEAST_TISSUE_FRACTION and (spot.mitoses or share >= 1.0)):
        return ()
    least = "Only" if spot.mitoses else "At most"
    scores = (
        "no scores are given" if _is_mostly_glass(share) else "its scores are lower than those of a full one"
    )
    return (
        f"{least} {100 * share:.0f} % of the hot spot's {spot.area_mm2:.2f} mm2 was analysed tissue, so its count is lower than that of a "
        f"full one, and {scores}: look at the slide, or count again in a smaller hot spot (wsi-minugan count with --area-mm2).",
    )


def _scores(mitoses: int, area_mm2: float, diameter_mm: float, mostly_glass: bool) -> Scores:
    ten_fields_mm2 = 10 * math.pi * (diameter_mm / 2) ** 2
    in_fields = round(mitoses * ten_fields_mm2 / area_mm2, 3)
    in_two_mm2 = round(mitoses * TUPAC16_AREA_MM2 / area_mm2, 3)
    try:
        cuts = nottingham_cuts(diameter_mm)
        nottingham = nottingham_score(round(in_fields), diameter_mm)
    except SettingsError:
        cuts, nottingham = None, None
    return Scores(
        nottingham=None if mostly_glass else nottingham,
        nottingham_field_diameter_mm=diameter_mm,
        nottingham_cuts=cuts,
        nottingham_count=in_fields,
        tupac16=None if mostly_glass else tupac16_score(round(in_two_mm2)),
        tupac16_count=in_two_mm2,
    )


def _method(area_mm2: float, diameter_mm: float) -> str:
    return (
        f"Mitoses are counted by their centroids. The hot spot is the circle of {area_mm2:.3f} mm2 that holds the most of them; "
        "no placement of the circle holds more (critical positions, not a raster). It is centred on the smallest circle around "
        "its mitoses; of equal counts the one with more analysed tissue is taken, then the smallest (y, x). "
        f"The Nottingham score is that of the hot spot's count brought to ten fields of {diameter_mm:g} mm diameter and rounded; "
        "TUPAC16's that of the count brought to 2 mm2; neither is given where less than half of the hot spot was analysed. "
        "Areas of high-power fields differ between microscopes: compare mitoses per mm2."
    )
