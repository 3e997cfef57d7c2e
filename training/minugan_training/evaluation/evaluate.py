"""A model's figures, on the sets that serve to choose and on those that only report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from minugan_training.data.index import Entry
from minugan_training.data.labels import (
    MITOSES,
    NUCLEI,
    Sample,
    in_samples_pixels,
    load_sample,
    mitosis_instances,
    mitosis_truth,
    read_instances,
)
from minugan_training.evaluation.detect import (
    Candidates,
    crops_of,
    full_fields,
    load_field,
    mitosis_candidates,
    patches_among,
    score_image,
    scored_crops,
)
from minugan_training.evaluation.matching import Matches, match
from minugan_training.evaluation.metrics import (
    Detections,
    average_precision,
    bootstrap_interval,
    dice,
    mean_interval,
    panoptic_quality,
    pooled,
    resampled_by,
)
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS, Thresholds, class_map
from wsi_minugan.segmentation.objects import label_objects, object_cut
from wsi_minugan.segmentation.splitting import classes_of_image, splitting_px

_RANKED_FROM = 0.5
"""Average precision ranks all objects above this cut on the score, or the card's if that is lower."""


class Figure(BaseModel):
    """One measured figure, with its interval where there are enough groups for one.

    Attributes
    ----------
    data, split : str
        What was judged, in words, and the index's split.
    figure : str
        Name of the figure, such as "F1".
    value : float
        The figure over all images.
    low, high : float or None
        Limits of its 95 % interval; None where there are too few groups.
    images, groups : int
        Images judged, and groups that the interval resamples.
    by : {"patient", "image", "object"}
        What a group is.
    """

    model_config = ConfigDict(frozen=True)

    data: str
    split: str
    figure: str
    value: float
    low: float | None = None
    high: float | None = None
    images: int
    groups: int
    by: Literal["patient", "image", "object"] = "image"


class Figures(BaseModel):
    """All figures of one model.

    Attributes
    ----------
    model, weights_sha256 : str
        Name on the card, and digest of the weights.
    radius_um : float
        Greatest distance of a match.
    jpeg : int or None
        Quality at which images were compressed first.
    rows : list of Figure
        One for each figure, split and kind of image.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    weights_sha256: str
    radius_um: float
    jpeg: int | None = None
    rows: list[Figure]


def evaluate_model(
    bundle: Bundle,
    root: Path,
    entries: Sequence[Entry],
    radius_um: float,
    splits: Sequence[str] = ("val", "test"),
    jpeg: int | None = None,
) -> Figures:
    """Return a bundle's figures at the thresholds on its card.

    Parameters
    ----------
    bundle : Bundle
        The model.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index.
    radius_um : float
        Greatest distance of a match; 7.5 is MIDOG's, 5 ICPR's.
    splits : sequence of str
        Which of the index's splits are judged, each by itself; "" is that of images that belong to none.
    jpeg : int, optional
        Quality at which images are compressed first, to see what compression costs.

    Returns
    -------
    Figures
        With intervals.

    Raises
    ------
    DataError
        If no image in these splits has known mitoses or nuclei.
    """
    predictor = Predictor(bundle, precision="fp32")  # figures that do not depend on the machine
    evaluation = _Evaluation(bundle, predictor, root, radius_um, jpeg)
    rows: list[Figure] = []
    for split in splits:
        part = [e for e in entries if e.split == split]
        rows += evaluation.fields(full_fields(part), split, "full fields")
        rows += evaluation.fields(patches_among(part), split, "patches")
        rows += evaluation.crops(crops_of(part), split)
        rows += evaluation.nuclei([e for e in part if e.nuclei == "known"], split)
    if not rows:
        raise DataError(
            "There is nothing to judge: no image in these splits has known mitoses or nuclei. See: minugan-train data check"
        )
    return Figures(
        model=bundle.card.name, weights_sha256=bundle.card.weights_sha256, radius_um=radius_um, jpeg=jpeg,
        rows=rows,
    )  # fmt: skip


class _Evaluation:
    """Measures one model."""

    def __init__(
        self, bundle: Bundle, predictor: Predictor, root: Path, radius_um: float, jpeg: int | None
    ) -> None:
        t = bundle.card.thresholds
        self._cut = Thresholds(t.mitosis, t.nucleus, t.boundary)
        self._card = t.model_copy(update={"mitosis_peak": bundle.card.least_peak("balanced")})
        self._splitting = bundle.card.nucleus_splitting
        self._predictor = predictor
        self._root = root
        self._radius_um = radius_um
        self._jpeg = jpeg

    def _kept(self, found: Candidates, mpp: float) -> Candidates:
        return found.kept(object_cut(self._card.mitosis_min_area_um2, self._card.mitosis_peak, mpp))

    def _classes(self, scores: NDArray[np.uint8], mpp: float) -> NDArray[np.uint8]:
        """Return the class map that a slide would have: touching nuclei are split, and dropped objects are left out."""
        card, splitting = self._card, self._splitting
        cuts = {
            MITOSIS: object_cut(card.mitosis_min_area_um2, card.mitosis_peak, mpp),
            NUCLEUS: object_cut(card.nucleus_min_area_um2, 0.0, mpp),
        }
        rule = None if splitting is None else splitting_px(mpp, **splitting.model_dump())
        return classes_of_image(scores, self._cut, rule, cuts)

    def fields(self, entries: Sequence[Entry], split: str, kind: str) -> Iterator[Figure]:
        """Yield detection figures on images where every negative is known: all, and by scanner."""
        found: list[tuple[Entry, Detections]] = []
        overlaps: list[float] = []
        ranked: list[tuple[float, bool]] = []
        for entry in entries:
            field = load_field(self._root, entry, self._jpeg)
            sample, truth, unknown = field.sample, field.truth_px, field.unknown
            scores = score_image(self._predictor, sample.image)
            kept = self._kept(mitosis_candidates(scores, self._cut), sample.mpp).where_known(unknown)
            matched = match(kept.xy_px, truth, self._radius_um / sample.mpp)
            found.append((entry, _counts(matched, field.area_mm2)))
            ranked += self._ranked(sample, scores, truth, unknown)
            if entry.outlined:
                overlaps += self._overlaps(entry, sample, scores, matched.pairs, kept, truth)
        for scanner in ("all", *_scanners(entries)):
            yield from _detections(
                f"{kind}, {scanner}", split, [(e, d) for e, d in found if scanner in {"all", e.scanner}]
            )
        truths = sum(d.tp + d.fn for _, d in found)
        if truths:
            values, hit = np.array([v for v, _ in ranked], float), np.array([h for _, h in ranked], bool)
            yield Figure(
                data=f"{kind}, all", split=split, figure="average precision",
                value=average_precision(values, hit, truths), images=len(entries), groups=len(entries),
            )  # fmt: skip
        if overlaps:
            yield Figure(
                data=f"{kind}, all", split=split, figure="Dice of true positives", by="object",
                value=float(np.mean(overlaps)), images=len(entries), groups=len(overlaps),
            )  # fmt: skip

    def _ranked(
        self,
        sample: Sample,
        scores: NDArray[np.uint8],
        truth: NDArray[np.float64],
        unknown: NDArray[np.bool_],
    ) -> list[tuple[float, bool]]:
        """Return a value for each candidate, and whether it is a mitosis: all that a low cut finds, whatever the card's are."""
        cut = replace(self._cut, mitosis=min(_RANKED_FROM, self._cut.mitosis))
        least = object_cut(self._card.mitosis_min_area_um2, 0.0, sample.mpp)
        found = mitosis_candidates(scores, cut).kept(least).where_known(unknown)
        matched = match(found.xy_px, truth, self._radius_um / sample.mpp)
        hit = np.isin(np.arange(len(found.xy_px)), matched.pairs[:, 0])
        return list(zip((found.peak * found.area_px**0.5).tolist(), hit.tolist(), strict=True))

    def _overlaps(
        self,
        entry: Entry,
        sample: Sample,
        scores: NDArray[np.uint8],
        pairs: NDArray[np.int64],
        found: Candidates,
        truth: NDArray[np.float64],
    ) -> list[float]:
        """Return the Dice of each true positive with its outline, in however many pieces that is."""
        painted = label_objects(class_map(scores, self._cut) == MITOSIS)
        instances = mitosis_instances(self._root, entry)
        outlined = (
            in_samples_pixels(instances, entry)
            if instances is not None
            else label_objects(sample.labels[..., MITOSES] == 1)
        )
        out = []
        for f, t in pairs.tolist():
            a, b = _object_at(painted, found.xy_px[f]), _object_at(outlined, truth[t])
            out.append(dice(a, b))
        return out

    def crops(self, entries: Sequence[Entry], split: str) -> Iterator[Figure]:
        """Yield recall on crops around mitoses, padded by reflection to a patch."""
        rows: list[tuple[Entry, Detections]] = []
        for entry, sample, scores in scored_crops(self._predictor, self._root, entries, self._jpeg):
            found = self._kept(mitosis_candidates(scores, self._cut), sample.mpp)
            matched = match(
                found.xy_px, mitosis_truth(self._root, entry, sample), self._radius_um / sample.mpp
            )
            rows.append((entry, Detections(len(matched.pairs), 0, len(matched.false_negatives))))
        for scanner in ("all", *_scanners(entries)) if rows else ():
            part = [(e, d) for e, d in rows if scanner in {"all", e.scanner}]
            yield _figure(f"crops, {scanner}", split, "recall", lambda d: d.recall, part)

    def nuclei(self, entries: Sequence[Entry], split: str) -> Iterator[Figure]:
        """Yield Dice and panoptic quality of nuclei, averaged over images: each data set's, and all where there are several."""
        overlap: list[tuple[Entry, float]] = []
        quality: list[tuple[Entry, float]] = []
        for entry in entries:
            sample = load_sample(self._root, entry, self._jpeg)
            classes = self._classes(score_image(self._predictor, sample.image), sample.mpp)
            instances = read_instances(self._root, entry)
            # A mitosis is a nucleus too, in what is found and in the truth.
            labelled = (sample.labels[..., [NUCLEI, MITOSES]] == 1).any(axis=-1)
            truth = instances > 0 if instances is not None else labelled
            overlap.append((entry, dice(classes > 0, truth)))
            if instances is not None:
                quality.append((entry, panoptic_quality(label_objects(classes > 0), instances)[0]))
        sets = sorted({e.dataset for e in entries})
        for chosen in [sets] if len(sets) < 2 else [sets, *([s] for s in sets)]:
            data = "nuclei" if chosen == sets else f"nuclei, {chosen[0]}"
            for name, values in (("Dice of nuclei", overlap), ("panoptic quality of nuclei", quality)):
                part = [(e, v) for e, v in values if e.dataset in chosen]
                if part:
                    yield _mean_figure(data, split, name, part)


def _scanners(entries: Sequence[Entry]) -> list[str]:
    """Return the scanners that are known by name."""
    return sorted({e.scanner for e in entries} - {""})


def _counts(matched: Matches, area_mm2: float) -> Detections:
    return Detections(
        len(matched.pairs), len(matched.false_positives), len(matched.false_negatives), area_mm2
    )


def _object_at(labels: NDArray[np.integer], xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the object nearest to a place; a centroid can lie outside its own object."""
    x, y = int(xy[0]), int(xy[1])
    top, left = max(0, y - 40), max(0, x - 40)
    window = labels[top : y + 41, left : x + 41]
    ys, xs = np.nonzero(window)
    if len(ys) == 0:
        return np.zeros(labels.shape, bool)
    nearest = np.argmin((ys + top - y) ** 2 + (xs + left - x) ** 2)
    return np.asarray(labels == window[ys[nearest], xs[nearest]], np.bool_)


def _detections(data: str, split: str, found: Sequence[tuple[Entry, Detections]]) -> Iterator[Figure]:
    figures: list[tuple[str, Callable[[Detections], float]]] = [
        ("F1", lambda d: d.f1),
        ("precision", lambda d: d.precision),
        ("recall", lambda d: d.recall),
        ("false positives per mm2", lambda d: d.fp_per_mm2),
    ]
    has_truth = any(d.tp + d.fn for _, d in found)
    for name, figure in (figures if has_truth else figures[-1:]) if found else ():
        yield _figure(data, split, name, figure, found)


def _figure(
    data: str,
    split: str,
    name: str,
    figure: Callable[[Detections], float],
    found: Sequence[tuple[Entry, Detections]],
) -> Figure:
    """Return a pooled figure with its interval by patient, or, where all images are of one patient, by image."""
    by = resampled_by(e.patient for e, _ in found)
    groups: dict[str, Detections] = defaultdict(lambda: Detections(0, 0, 0))
    for entry, counts in found:
        groups[_group(entry, by)] += counts
    low, high = bootstrap_interval(groups, figure) if len(groups) > 1 else (None, None)
    return Figure(
        data=data, split=split, figure=name, value=figure(pooled(list(groups.values()))), low=low, high=high,
        images=len(found), groups=len(groups), by=by,
    )  # fmt: skip


def _mean_figure(data: str, split: str, name: str, found: Sequence[tuple[Entry, float]]) -> Figure:
    """Return the mean over images, with its interval by patient or by image as that of `_figure`."""
    by = resampled_by(e.patient for e, _ in found)
    groups: dict[str, list[float]] = defaultdict(list)
    for entry, value in found:
        groups[_group(entry, by)].append(value)
    low, high = mean_interval(groups) if len(groups) > 1 else (None, None)
    return Figure(
        data=data, split=split, figure=name, value=float(np.mean([v for _, v in found])), low=low, high=high,
        images=len(found), groups=len(groups), by=by,
    )  # fmt: skip


def _group(entry: Entry, by: Literal["patient", "image"]) -> str:
    return entry.patient if by == "patient" else f"{entry.image} {entry.x_px} {entry.y_px}"


def table_of(figures: Figures) -> Any:
    """Return the figures as a table for a terminal.

    Parameters
    ----------
    figures : Figures
        What `evaluate_model` returns.

    Returns
    -------
    rich.table.Table
        A row for each figure.
    """
    from rich.table import Table

    compressed = "" if figures.jpeg is None else f", images as JPEG of quality {figures.jpeg}"
    table = Table(
        "data", "split", "figure", "value", "95 % interval", "images", "groups", "by",
        title=figures.model + compressed,
    )  # fmt: skip
    for r in figures.rows:
        interval = "" if r.low is None or r.high is None else f"{r.low:.3f} to {r.high:.3f}"
        table.add_row(
            r.data, r.split, r.figure, f"{r.value:.3f}", interval, str(r.images), str(r.groups), r.by
        )
    return table
