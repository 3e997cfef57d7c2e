"""Models of count.json."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wsi_minugan.frozen import FrozenModel


class HotspotCount(FrozenModel):
    """A hot spot, in level-0 pixels."""

    shape: Literal["circle", "rectangle"] = "circle"
    area_mm2: float = Field(gt=0)
    mitoses: int = Field(ge=0)
    mitoses_per_mm2: float = Field(ge=0)
    center_x_px: float | None = Field(description="None where there are no mitoses.")
    center_y_px: float | None
    radius_px: float = Field(gt=0, description="Of a rectangle half its diagonal.")
    width_px: float | None = Field(None, description="Of a circle its diameter.")
    height_px: float | None = None
    tissue_fraction: float | None = Field(description="Share of it that was analysed; None where not known.")


class StabilityCount(FrozenModel):
    """Where else the hot spot could lie."""

    least: int = Field(description="So many mitoses: the hot spot's, less what chance alone can add to it.")
    places: int = Field(
        description="Separate parts of the area where its centre could lie with so many or more."
    )
    area_mm2: float = Field(description="That area.")
    farthest_mm: float = Field(description="Greatest distance of such a centre from the hot spot's.")


class FieldsCount(FrozenModel):
    """Ten high-power fields that do not overlap, in level-0 pixels."""

    diameter_mm: float = Field(gt=0)
    mode: Literal["adjacent", "free"]
    counts: tuple[int, ...] = Field(
        description="Mitoses in each field, the most first; empty where there are none."
    )
    centers_px: tuple[tuple[float, float], ...] = Field(description="x, y of each field's centre.")
    total: int = Field(ge=0)
    proved_optimal: bool = Field(description="Whether no placement of the fields holds more.")
    upper_bound: int = Field(description="No placement of the fields holds more than this.")
    mitoses_per_mm2: float


class IntervalCount(FrozenModel):
    """The true number of mitoses in the hot spot, as the model's measured errors let it be."""

    low: int = Field(ge=0)
    high: int = Field(ge=0)
    level: float
    expected: float
    optimism: float | None = Field(
        description="By how much the expected number is lower because the window was chosen for its count; None: not corrected."
    )
    nottingham: dict[int, float] | None = Field(
        description="Probability of each score; None where no score is given."
    )
    tupac16: dict[int, float] | None = Field(description="Likewise.")
    reader_low: int | None = Field(
        None, description="What one other pathologist would count, at the same level."
    )
    reader_high: int | None = None
    operating_point: str
    patients: int = Field(description="Patients on whom the model's errors were measured.")


class ThresholdCount(FrozenModel):
    """The count with another threshold."""

    threshold: float = Field(description="Least peak score of a mitosis.")
    mitoses: int
    mitoses_per_mm2: float | None
    hotspot_mitoses: int
    nottingham: int | None
    tupac16: int | None


class RegionCount(FrozenModel):
    """The mitoses of one region that was drawn."""

    name: str
    area_mm2: float = Field(description="Of the region as drawn, less what is excluded.")
    tissue_mm2: float | None = Field(description="Tissue in it; None where not known.")
    mitoses: int
    mitoses_per_mm2: float | None = Field(
        description="Of its tissue, or of its area where tissue is not known."
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
    hotspots: tuple[HotspotCount, ...] = Field(
        (), description="The hot spot, and the next that do not overlap."
    )
    stability: StabilityCount | None = None
    fields: FieldsCount | None = None
    interval: IntervalCount | None = Field(None, description="None where `no_interval` says why.")
    no_interval: str | None = None
    sensitivity: tuple[ThresholdCount, ...] = Field((), description="From the run's own threshold upwards.")
    regions: tuple[RegionCount, ...] = Field((), description="Regions that were drawn; all else is left out.")
    scores: Scores
    method: str
    warnings: tuple[str, ...] = Field((), description="Sentences on what makes this count less certain.")
