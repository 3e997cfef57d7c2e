"""A finished slide's result, as a review needs it: its mitoses with their UUIDs, and how it was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_minugan.counting.count import Count, count_mitoses
from wsi_minugan.counting.hotspot import TissueFraction
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.outputs.objects import Marked, read_objects
from wsi_minugan.pipeline.recount import tissue_of_results

MITOSES, COUNT = "mitoses.geojson", "count.json"
_SCORES = ("Probability", "Mean score", "Peak score")


@dataclass(frozen=True)
class Result:
    """One finished slide.

    Attributes
    ----------
    folder : Path
        ``OUT/SLIDE_ID``.
    sealed : Manifest
        Its manifest.
    mitoses : tuple of Marked
        Its mitoses, level-0 px.
    count : Count
        Its count.json.
    tissue : callable
        Share of a circle (level-0 px) that was analysed.
    """

    folder: Path
    sealed: Manifest
    mitoses: tuple[Marked, ...]
    count: Count
    tissue: TissueFraction

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel."""
        return self.sealed.slide.mpp

    @property
    def digest(self) -> str:
        """SHA-256 of the mitoses.geojson that is reviewed."""
        return self.sealed.files[MITOSES]

    def recount(self, mitoses: Sequence[Marked]) -> Count:
        """Count other mitoses as this slide's were counted: the same hot spot's area, field and tissue."""
        points = np.array([m.centre_px for m in mitoses], np.float64).reshape(-1, 2)
        return count_mitoses(
            points,
            self.mpp,
            self.count.hotspot.area_mm2,
            self.count.scores.nottingham_field_diameter_mm,
            self.count.area_mm2,
            self.tissue,
        )


def open_result(folder: Path) -> Result:
    """Read a finished slide's folder.

    Parameters
    ----------
    folder : Path
        ``OUT/SLIDE_ID``.

    Raises
    ------
    OutputError
        If it holds no finished result, or one that cannot be read.
    InputError
        If its mitoses.geojson cannot be read.
    """
    sealed = read_manifest(folder)
    try:
        count = Count.model_validate_json((folder / COUNT).read_bytes())
        tissue = tissue_of_results(folder)
    except (OSError, ValueError, KeyError) as e:
        raise OutputError(
            f"The results in {folder} cannot be read: {e}. Run the same command again: only that slide is done again."
        ) from e
    if MITOSES not in sealed.files:
        raise OutputError(f"{folder}: the manifest lists no {MITOSES}. Do that slide again.")
    found = read_objects(folder / MITOSES, sealed.geojson_origin_px)
    return Result(folder, sealed, tuple(m for m in found if m.counts), count, tissue)


def score_of(mitosis: Marked) -> float:
    """Return how sure the model is of a mitosis, 0 to 1; 1 for what a person added."""
    for name in _SCORES:
        if name in mitosis.measurements:
            return float(min(1.0, max(0.0, mitosis.measurements[name])))
    return 1.0
