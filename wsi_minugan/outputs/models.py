"""Models of the JSON files that other programs read: manifest.json and run.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wsi_minugan.frozen import FrozenModel


class SlideFacts(FrozenModel):
    """All that is told of a slide; names of patients may hide in the rest of its metadata."""

    slide_id: str
    file_name: str | None = Field(description="None in runs with pseudonyms.")
    fingerprint: str = Field(description="SHA-256 of the file's size and of samples of its content.")
    width_px: int
    height_px: int
    levels: int
    mpp: float
    mpp_source: str
    vendor: str
    objective: float | None
    bounds_x_px: int
    bounds_y_px: int


class ErrorsOnPatient(FrozenModel):
    """What the model found on one patient's fields, against what experts marked."""

    area_mm2: float
    true_positives: int
    false_positives: int
    false_negatives: int


class ModelErrors(FrozenModel):
    """What a count's interval rests on, or why there is none."""

    operating_point: str
    patients: tuple[ErrorsOnPatient, ...]
    reader_f1: float | None = Field(None, description="F1 of single mitoses between two readers.")
    calibrated: bool = Field(description="Whether the mitoses' scores are probabilities.")
    why_not: str = Field("", description="Why there are no patients.")


Three = tuple[float, float, float]


class StainFacts(FrozenModel):
    """A slide's stain, and the map from there to the target stain of the model's card."""

    mean: Three = Field(
        description="Mean optical density (natural logarithm) of haematoxylin, of eosin and of the rest over tissue."
    )
    spread: Three = Field(description="Standard deviation of each.")
    matrix: tuple[Three, Three, Three] = Field(
        description="Densities in R, G, B times this matrix, plus the offset, have the target stain."
    )
    offset: Three
    applied: bool = Field(description="Whether the network saw the slide through this map.")


class Manifest(FrozenModel):
    """manifest.json: what a slide's results were made from, and every file's digest; written last."""

    schema_version: Literal[1] = 1
    slide: SlideFacts
    model: dict[str, str]
    model_errors: ModelErrors | None = Field(
        None,
        description="The model's errors, as its card had them in the run; a recount makes its interval from them. None in older results.",
    )
    nucleus_splitting: dict[str, float] | None = Field(
        None, description="Where touching nuclei were split, in um and um2; None: they stayed joined."
    )
    settings: dict[str, Any]
    versions: dict[str, str]
    analysis_mpp: float
    analysis_width_px: int
    analysis_height_px: int
    tissue_mm2: float
    patches: int = Field(description="Patches that hold tissue.")
    tiles_not_analysed: int = 0
    geojson_origin_px: tuple[int, int] = Field(
        (0, 0), description="x, y of the level-0 pixel that mitoses.geojson counts from (--bounds-offset)."
    )
    stain: StainFacts | None = Field(
        None,
        description="None where the model's card says nothing of stains, or no tissue shows the slide's.",
    )
    warnings: list[str]
    pixel_figures: dict[str, float] = Field(
        default_factory=dict,
        description="Stain, focus and compression of the tissue (minugan/sentinel.py); empty where not measured.",
    )
    files: dict[str, str] = Field(description="Path below the slide's folder: SHA-256.")


class RunFile(FrozenModel):
    """run.json: one run of a batch."""

    schema_version: Literal[1] = 1
    command: Literal["run"] = "run"
    settings: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, str]
    machine: dict[str, Any]
    started: str = Field(description="ISO 8601, UTC.")
    ended: str | None
    slides_done: int
    slides_failed: int
    slides_pending: int


class SlideState(FrozenModel):
    """A row of slides.csv, and of `status --json`."""

    slide_id: str
    path: str
    status: Literal["pending", "running", "done", "failed"]
    error: str = ""
    mpp: float | None = None
    tissue_mm2: float | None = None
    nuclei: int | None = None
    mitoses: int | None = None
    mitoses_per_mm2: float | None = None
    hotspot_mitoses: int | None = None
    hotspot_area_mm2: float | None = None
    nottingham_score: int | None = None
    seconds: float | None = None
    hotspot_tissue_fraction: float | None = None
    tupac16_score: int | None = None
    hotspot_mitoses_per_mm2: float | None = None
    warnings: tuple[str, ...] = Field(
        (), description="Sentences of the slide's manifest; joined in slides.csv."
    )


class StatusFile(FrozenModel):
    """What `status --json` prints."""

    schema_version: Literal[1] = 1
    running: bool
    slides: list[SlideState]
    blocks_done: dict[str, int] = Field(description="Finished blocks of running slides.")
