"""A slide's count: all mitoses, hot spots, fields, scores, and how certain they are; the content of count.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_minugan.counting import interval
from wsi_minugan.counting.density import per_mm2, tiles_of
from wsi_minugan.counting.fields.placing import LIMIT_S, find_fields
from wsi_minugan.counting.models import (
    Count,
    FieldsCount,
    HotspotCount,
    IntervalCount,
    RegionCount,
    Scores,
    StabilityCount,
    ThresholdCount,
)
from wsi_minugan.counting.regions import TissueRaster, points_in
from wsi_minugan.counting.scores import nottingham_cuts, nottingham_score, tupac16_score
from wsi_minugan.counting.sensitivity import sensitivity
from wsi_minugan.counting.settings import Ground, Options, method_in_words
from wsi_minugan.counting.stability import Stability, stability_of
from wsi_minugan.counting.windows import (
    Shape,
    Window,
    circle_of,
    find_windows,
    rectangle_of,
)
from wsi_minugan.errors import SettingsError
from wsi_minugan.geometry import UM2_PER_MM2

FloatArray = NDArray[np.float64]
TUPAC16_AREA_MM2 = 2.0
LEAST_TISSUE_FRACTION = 0.5
"""Below it the hot spot's count stands for less than half the area that the scores' tables are made for, and no score is given: ten fields
full of such tissue would hold more than twice as many, which is what parts one score from the next (7 and 14 at 0.5 mm)."""
SURE = 0.8
"""A score that is less probable is near a cut-off, and the report says so."""


def count_mitoses(
    points_px: FloatArray,
    mpp: float,
    hotspot_mm2: float,
    hpf_diameter_mm: float,
    area_mm2: float | None = None,
    ground: Ground | None = None,
    options: Options | None = None,
) -> Count:
    """Count mitoses over all, in hot spots and in ten fields, and say how certain that is.

    Parameters
    ----------
    points_px : ndarray of float, shape (n, 2)
        x, y of the mitoses, level-0 px.
    mpp : float
        um per level-0 pixel.
    hotspot_mm2 : float
        Area of the hot spot, mm2.
    hpf_diameter_mm : float
        Diameter of a high-power field, mm.
    area_mm2 : float, optional
        Tissue analysed, mm2. Without it there is no density over all.
    ground : Ground, optional
        What is known of the slide under them.
    options : Options, optional
        How to count.

    Returns
    -------
    Count
        The content of ``count.json``.
    """
    ground, options = ground or Ground(), options or Options()
    shape = _shape(hotspot_mm2, mpp, options)
    windows = find_windows(points_px, shape, options.hotspots, ground.tissue, options.min_tissue)
    spots = tuple(_hotspot(w, hotspot_mm2, shape) for w in (windows or (None,)))
    share = _analysed_share(spots[0], area_mm2)
    glass = _is_mostly_glass(share)
    scores = scores_of(spots[0].mitoses, hotspot_mm2, hpf_diameter_mm, glass)
    predicted = _interval(points_px, windows, shape, hotspot_mm2, hpf_diameter_mm, mpp, ground)
    if predicted and glass:  # as no score is given, none is probable either
        predicted = predicted.model_copy(update={"nottingham": None, "tupac16": None})
    n = len(points_px)
    return Count(
        mpp=mpp,
        mitoses=n,
        area_mm2=area_mm2,
        mitoses_per_mm2=per_mm2(n, area_mm2),
        hotspot=spots[0],
        hotspots=spots if windows else (),
        stability=_stability(points_px, shape, windows, mpp),
        fields=_fields(points_px, mpp, hpf_diameter_mm, options, ground.tissue),
        interval=predicted,
        no_interval=None if predicted else ground.reliability.why_not,
        sensitivity=_sensitivity(points_px, ground, shape, (hotspot_mm2, hpf_diameter_mm, glass), area_mm2),
        regions=_regions(points_px, ground, mpp),
        scores=scores,
        method=method_in_words(hotspot_mm2, hpf_diameter_mm, options),
        warnings=(
            *_tissue_warnings(spots[0], share, options.min_tissue),
            *_further_warnings(spots[1:], options.min_tissue),
            *_cut_warnings(predicted, scores),
        ),
    )


def circle_radius_px(area_mm2: float, mpp: float) -> float:
    """Return the radius in pixels of `mpp` of a circle of an area.

    Parameters
    ----------
    area_mm2 : float
        Area of the circle, mm2.
    mpp : float
        um per pixel.

    Returns
    -------
    float
        Radius in px: ``sqrt(area / pi) / mpp``.

    Examples
    --------
    >>> round(circle_radius_px(2.0, mpp=0.25))
    3192
    """
    return math.sqrt(area_mm2 * UM2_PER_MM2 / math.pi) / mpp


def _shape(area_mm2: float, mpp: float, options: Options) -> Shape:
    if options.shape == "rectangle":
        return rectangle_of(area_mm2, mpp, options.aspect)
    return circle_of(area_mm2, mpp)


def _hotspot(spot: Window | None, area_mm2: float, shape: Shape) -> HotspotCount:
    return HotspotCount(
        shape="circle" if shape.circle else "rectangle",
        area_mm2=area_mm2,
        mitoses=spot.mitoses if spot else 0,
        mitoses_per_mm2=spot.mitoses / area_mm2 if spot else 0.0,
        center_x_px=round(spot.x_px, 3) if spot else None,
        center_y_px=round(spot.y_px, 3) if spot else None,
        radius_px=shape.radius_px,
        width_px=shape.width_px,
        height_px=shape.height_px,
        tissue_fraction=spot.tissue_fraction if spot else None,
    )


def _stability(
    points: FloatArray, shape: Shape, windows: Sequence[Window], mpp: float
) -> StabilityCount | None:
    if not windows:
        return None
    best = windows[0].mitoses
    # What a Poisson number varies by, once in forty: as good a place may hold so few.
    found: Stability = stability_of(
        points, shape, windows[0], max(1, math.ceil(best - 1.96 * math.sqrt(best))), mpp
    )
    return StabilityCount(
        least=found.least,
        places=found.places,
        area_mm2=round(found.area_mm2, 4),
        farthest_mm=round(found.farthest_mm, 3),
    )


def _fields(
    points: FloatArray, mpp: float, diameter_mm: float, options: Options, tissue: TissueRaster | None
) -> FieldsCount | None:
    mode = options.fields
    if mode is None:
        return None
    limit_s = LIMIT_S if options.fields_s is None else options.fields_s
    found = find_fields(points, 1000 * diameter_mm / mpp, mode, tissue=tissue, limit_s=limit_s)
    return FieldsCount(
        diameter_mm=diameter_mm,
        mode=mode,
        counts=found.counts,
        centers_px=tuple((float(x), float(y)) for x, y in found.centers_px),
        total=found.total,
        proved_optimal=found.proved_optimal,
        upper_bound=found.upper_bound,
        mitoses_per_mm2=found.total / _ten_fields_mm2(diameter_mm),
    )


def _interval(
    points: FloatArray,
    windows: Sequence[Window],
    shape: Shape,
    area_mm2: float,
    diameter_mm: float,
    mpp: float,
    ground: Ground,
) -> IntervalCount | None:
    known = ground.reliability
    if len(known.patients) < interval.LEAST_PATIENTS:
        return None
    spot = windows[0] if windows else Window(0.0, 0.0, 0)
    tiles = None
    if ground.tissue is not None:
        tiles = tiles_of(points, ground.tissue, math.sqrt(area_mm2 * UM2_PER_MM2) / mpp, mpp)
    analysed_mm2 = area_mm2 * max(spot.tissue_fraction or 1.0, 0.01)
    chances = None
    if known.calibrated and ground.scores is not None and windows:
        chances = ground.scores[shape.holds(points, spot.x_px, spot.y_px)]
    hits, wrong = (sum(getattr(p, k) for p in known.patients) for k in ("true_positives", "false_positives"))
    found = interval.Found(spot.mitoses, analysed_mm2, tiles, chances, (hits + 0.5) / (hits + wrong + 1))
    predicted = interval.predict(found, known.patients)
    low, high = predicted.interval()
    drawn = [scores_of(int(n), area_mm2, diameter_mm) for n in np.arange(predicted.numbers.max() + 1)]
    nottingham = np.array([s.nottingham or 0 for s in drawn])[predicted.numbers]
    reader = (
        interval.of_another_reader(predicted, known.reader_f1).interval() if known.reader_f1 else (None, None)
    )
    return IntervalCount(
        low=low,
        high=high,
        level=interval.LEVEL,
        expected=round(predicted.expected, 2),
        optimism=predicted.optimism,
        nottingham=predicted.probabilities(nottingham) if nottingham.all() else None,
        tupac16=predicted.probabilities(np.array([s.tupac16 for s in drawn])[predicted.numbers]),
        reader_low=reader[0],
        reader_high=reader[1],
        operating_point=known.operating_point,
        patients=len(known.patients),
    )


def _sensitivity(
    points: FloatArray,
    ground: Ground,
    shape: Shape,
    scored: tuple[float, float, bool],
    area_mm2: float | None,
) -> tuple[ThresholdCount, ...]:
    """Return the count at higher thresholds; `scored` is the hot spot's area, the fields' diameter, and whether it is mostly glass."""
    if ground.scores is None:
        return ()
    found = []
    for step in sensitivity(points, ground.scores, shape, ground.tissue):
        scores = scores_of(step.in_hotspot, *scored)
        found.append(
            ThresholdCount(
                threshold=step.threshold,
                mitoses=step.mitoses,
                mitoses_per_mm2=per_mm2(step.mitoses, area_mm2),
                hotspot_mitoses=step.in_hotspot,
                nottingham=scores.nottingham,
                tupac16=scores.tupac16,
            )
        )
    return tuple(found)


def _regions(points: FloatArray, ground: Ground, mpp: float) -> tuple[RegionCount, ...]:
    found = []
    for name, region in ground.regions.items():
        area = float(shapely.area(region)) * mpp**2 / UM2_PER_MM2
        tissue = None if ground.tissue is None else ground.tissue.area_mm2(mpp, region)
        mitoses = int(points_in(region, points).sum())
        density = per_mm2(mitoses, area if tissue is None else tissue)
        found.append(
            RegionCount(name=name, area_mm2=area, tissue_mm2=tissue, mitoses=mitoses, mitoses_per_mm2=density)
        )
    return tuple(found)


def _analysed_share(spot: HotspotCount, area_mm2: float | None) -> float | None:
    """Return which share of the hot spot was analysed; where no mitosis gives it a place, the most that any place can have."""
    if spot.tissue_fraction is not None or spot.mitoses or area_mm2 is None:
        return spot.tissue_fraction
    return min(1.0, area_mm2 / spot.area_mm2)


def _is_mostly_glass(share: float | None) -> bool:
    return share is not None and share < LEAST_TISSUE_FRACTION


def _tissue_warnings(spot: HotspotCount, share: float | None, min_tissue: float) -> Iterator[str]:
    if share is None:
        return
    if spot.mitoses and share < min_tissue:
        yield (
            f"No place of the hot spot has {100 * min_tissue:.0f} % of analysed tissue; "
            f"the one with the most mitoses among those with the most tissue has {100 * share:.0f} %."
        )
    if share >= LEAST_TISSUE_FRACTION and (spot.mitoses or share >= 1.0):
        return
    least = "Only" if spot.mitoses else "At most"
    scores = (
        "no scores are given" if _is_mostly_glass(share) else "its scores are lower than those of a full one"
    )
    yield (
        f"{least} {100 * share:.0f} % of the hot spot's {spot.area_mm2:.2f} mm2 was analysed tissue, so its count is lower than that of a "
        f"full one, and {scores}: look at the slide, or count again in a smaller hot spot (wsi-minugan count with --area-mm2)."
    )


def _further_warnings(spots: Sequence[HotspotCount], min_tissue: float) -> Iterator[str]:
    """Say which of the further hot spots have less tissue than was asked for."""
    for number, spot in enumerate(spots, 2):
        if spot.tissue_fraction is not None and spot.tissue_fraction < min_tissue:
            yield (
                f"Beside the hot spots before it, no place of hot spot {number} has {100 * min_tissue:.0f} % of analysed tissue; "
                f"the one that was taken has {100 * spot.tissue_fraction:.0f} %."
            )


def _cut_warnings(predicted: IntervalCount | None, scores: Scores) -> tuple[str, ...]:
    """Say where a score could easily be another."""
    if predicted is None or scores.tupac16 is None:
        return ()
    found = []
    for name, chances, score in (
        ("Nottingham", predicted.nottingham, scores.nottingham),
        ("TUPAC16", predicted.tupac16, scores.tupac16),
    ):
        if chances is not None and max(chances.values()) < SURE:
            words = ", ".join(f"{s} with {100 * p:.0f} %" for s, p in sorted(chances.items()))
            found.append(
                f"The {name} score of {score} is near a cut-off: it is {words}. Look at the hot spot yourself."
            )
    return tuple(found)


def _ten_fields_mm2(diameter_mm: float) -> float:
    return 10 * math.pi * (diameter_mm / 2) ** 2


def scores_of(mitoses: int, area_mm2: float, diameter_mm: float, mostly_glass: bool = False) -> Scores:
    """Return the mitotic scores of a hot spot, from its density brought to the areas that the scores' tables are made for.

    Parameters
    ----------
    mitoses : int
        Mitoses in the hot spot.
    area_mm2 : float
        Area of the hot spot.
    diameter_mm : float
        Diameter of a high-power field.
    mostly_glass : bool
        Whether too little of the hot spot is tissue for a score. Both scores are None then.

    Returns
    -------
    Scores
        Nottingham's and TUPAC16's score, with the counts that they rest on. Nottingham's is None also for a diameter that its table
        does not have.

    Examples
    --------
    >>> scores = scores_of(mitoses=12, area_mm2=2.0, diameter_mm=0.5)
    >>> scores.nottingham_count, scores.nottingham
    (11.781, 2)
    >>> scores.tupac16_count, scores.tupac16
    (12.0, 3)
    """
    in_fields = round(mitoses * _ten_fields_mm2(diameter_mm) / area_mm2, 3)
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
