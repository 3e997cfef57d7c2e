"""A finished slide's result, as a review needs it: its mitoses with their UUIDs, and how it was counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsi_minugan.counting.count import count_mitoses
from wsi_minugan.counting.models import Count
from wsi_minugan.counting.regions import points_in
from wsi_minugan.counting.settings import Ground, Reliability
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.geojson import PEAK
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.outputs.objects import Marked, read_objects
from wsi_minugan.pipeline.recount import Finished, open_finished, options_in

MITOSES, COUNT = "mitoses.geojson", "count.json"
REVIEWED = Reliability(
    why_not="These mitoses were reviewed, and how often a review errs was not measured, so the true number cannot be bounded."
)
_SCORES = (PEAK, "Mean score")
"""Measurements that tell how sure the model is; the first is what counts are thresholded by, and calibrated where the model is."""


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
    finished : Finished
        What was analysed, and the model's errors.
    """

    folder: Path
    sealed: Manifest
    mitoses: tuple[Marked, ...]
    count: Count
    finished: Finished

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel.

        Returns
        -------
        float
            um per level-0 pixel.
        """
        return self.sealed.slide.mpp

    @property
    def digest(self) -> str:
        """SHA-256 of the mitoses.geojson that is reviewed.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        return self.sealed.files[MITOSES]

    def recount(
        self, mitoses: Sequence[Marked], fields_s: float | None = None, *, fields: bool = True
    ) -> Count:
        """Count other mitoses as this slide's were counted: by the run's settings, and in what the run counted in.

        A person has looked at them, so the model's errors say nothing of them any more: there is no interval.

        Parameters
        ----------
        mitoses : sequence of Marked
            What counts, level-0 px.
        fields_s : float, optional
            Seconds of processor time after which no better fields are looked for.
        fields : bool
            Whether fields are placed, if the run placed some.

        Returns
        -------
        Count
            As ``count.json`` holds it.
        """
        points = np.array([m.centre_px for m in mitoses], np.float64).reshape(-1, 2)
        drawn, tissue = self.finished.drawn, self.finished.counted.tissue
        if drawn.allowed is not None:
            points = points[points_in(drawn.allowed, points)]
        options = replace(options_in(self.sealed), fields_s=fields_s)
        return count_mitoses(
            points,
            self.mpp,
            self.count.hotspot.area_mm2,
            self.count.scores.nottingham_field_diameter_mm,
            self.count.area_mm2,
            Ground(tissue, regions=drawn.regions, reliability=REVIEWED),
            options if self.count.fields and fields else replace(options, fields=None),
        )


def open_result(folder: Path) -> Result:
    """Read a finished slide's folder.

    Parameters
    ----------
    folder : Path
        ``OUT/SLIDE_ID``.

    Returns
    -------
    Result
        The slide, ready to be reviewed.

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
        finished = open_finished(folder)
    except (OSError, ValueError, KeyError) as e:
        raise OutputError(
            f"The results in {folder} cannot be read: {e}. Run the same command again: only that slide is done again."
        ) from e
    if MITOSES not in sealed.files:
        raise OutputError(f"{folder}: the manifest lists no {MITOSES}. Do that slide again.")
    found = read_objects(folder / MITOSES, sealed.geojson_origin_px)
    return Result(folder, sealed, tuple(m for m in found if m.counts), count, finished)


def score_of(mitosis: Marked) -> float:
    """Return how sure the model is of a mitosis, 0 to 1; 1 for what a person added.

    Parameters
    ----------
    mitosis : Marked
        An object of a review.

    Returns
    -------
    float
        The peak score where there is one.
    """
    for name in _SCORES:
        if name in mitosis.measurements:
            return float(min(1.0, max(0.0, mitosis.measurements[name])))
    return 1.0
