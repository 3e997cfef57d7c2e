"""The form of mitoses.geojson, of which its schema is made."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Classification(_Strict):
    """QuPath's class of an object; both keys are needed."""

    name: str = Field(min_length=1, pattern=r"^[^\n]*\S[^\n]*$")
    color: tuple[int, int, int]


class Properties(_Strict):
    """QuPath's properties of an object."""

    objectType: Literal["annotation", "detection"]  # noqa: N815 - QuPath's name
    name: str | None = None
    isLocked: bool | None = Field(None, description="True of the hot spot and the fields.")  # noqa: N815
    type: str | None = Field(None, description="The class again, by which TIAToolbox colours.")
    classification: Classification
    measurements: dict[str, float] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(
        default_factory=dict, description="In reviews: who decided what, and when."
    )


class Geometry(_Strict):
    """A polygon or multipolygon in level-0 pixels."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class Feature(_Strict):
    """One mitosis, the hot spot, or a field."""

    type: Literal["Feature"] = "Feature"
    id: uuid.UUID
    geometry: Geometry
    properties: Properties


class FeatureCollection(_Strict):
    """Content of mitoses.geojson; `origin_px` is a foreign member (RFC 7946, 6.1), which other programs pass over."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    origin_px: tuple[int, int] = Field(
        (0, 0),
        description="x, y of the level-0 pixel that the coordinates count from; (0, 0) where not there.",
    )
    features: list[Feature]
