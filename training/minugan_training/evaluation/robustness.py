"""A model on images changed as another laboratory or scanner might change them, at its card's operating point."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from skimage.color import hed2rgb, rgb2hed

from minugan_training.data.images import compressed
from minugan_training.data.index import Entry
from minugan_training.evaluation.detect import LabelledField, load_field
from minugan_training.evaluation.metrics import Detections, pooled
from minugan_training.evaluation.operating_point import (
    PointFigures,
    figures_on_card,
    mean_f1,
    measured_groups,
)
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.bundle import Bundle

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """What is done to an image.

    Attributes
    ----------
    told : str
        In words, for a table.
    pixels : callable, optional
        From an image to a changed one of the same shape.
    mpp_factor : float
        The image's mpp is said to be so many times what it is.
    """

    told: str
    pixels: Callable[[Image], Image] | None = None
    mpp_factor: float = 1.0


def _rounded(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _stained(haematoxylin: float = 1.0, eosin: float = 1.0) -> Callable[[Image], Image]:
    factors = np.array([haematoxylin, eosin, 1.0])
    return lambda image: _rounded(255 * hed2rgb(rgb2hed(image) * factors))


def _gamma(power: float) -> Callable[[Image], Image]:
    return lambda image: _rounded(255 * (image / 255.0) ** power)


def _tinted(red: float, green: float, blue: float) -> Callable[[Image], Image]:
    return lambda image: _rounded(image * np.array([red, green, blue]))


def _sharpened(image: Image) -> Image:
    soft = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    return _rounded(2.5 * image.astype(np.float32) - 1.5 * soft)


CHANGES: Mapping[str, Change] = {
    "none": Change("none"),
    "blur": Change("blurred, sigma 1 px", lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0))),
    "sharpen": Change("sharpened: unsharp mask, sigma 1.5 px, 150 %", _sharpened),
    "haematoxylin-0.7": Change("haematoxylin's density times 0.7", _stained(haematoxylin=0.7)),
    "haematoxylin-1.4": Change("haematoxylin's density times 1.4", _stained(haematoxylin=1.4)),
    "eosin-0.6": Change("eosin's density times 0.6", _stained(eosin=0.6)),
    "eosin-1.5": Change("eosin's density times 1.5", _stained(eosin=1.5)),
    "brighter": Change("brighter: gamma 0.7", _gamma(0.7)),
    "darker": Change("darker: gamma 1.4", _gamma(1.4)),
    "red": Change("redder: green and blue times 0.92", _tinted(1.0, 0.92, 0.92)),
    "blue": Change("bluer: red times 0.92, green times 0.95", _tinted(0.92, 0.95, 1.0)),
    "jpeg-50": Change("JPEG of quality 50", lambda image: compressed(image, 50)),
    "mpp-0.9": Change("said to be 10 % finer: mpp times 0.9", mpp_factor=0.9),
    "mpp-1.1": Change("said to be 10 % coarser: mpp times 1.1", mpp_factor=1.1),
}
"""By name. Sizes are those that laboratories and scanners differ by."""


class ChangedFigures(BaseModel):
    """What a model finds on changed images, at its card's calibration and balanced operating point.

    Attributes
    ----------
    change : str
        A key of `CHANGES`.
    mean_f1 : float
        Mean over patients with mitoses.
    recall, precision : float
        Over all fields together.
    worst_false_positives_per_mm2 : float
        Of all patients and scanners.
    patients : list of PointFigures
        By patient and scanner.
    """

    model_config = ConfigDict(frozen=True)

    change: str
    mean_f1: float
    recall: float
    precision: float
    worst_false_positives_per_mm2: float
    patients: list[PointFigures]


def changed_field(root: Path, entry: Entry, change: Change) -> LabelledField:
    """Read an image with known mitoses, and change it.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.
    change : Change
        What is done to it. Places and outlines move with the mpp.

    Returns
    -------
    LabelledField
        The labels are those of the image as it is.
    """
    field = load_field(root, entry.model_copy(update={"mpp": entry.mpp * change.mpp_factor}))
    if change.pixels is None:
        return field
    return replace(field, sample=replace(field.sample, image=change.pixels(field.sample.image)))


def changed_figures(
    bundle: Bundle, root: Path, entries: Sequence[Entry], radius_um: float, names: Sequence[str]
) -> Iterator[ChangedFigures]:
    """Yield a model's figures on whole fields, for one change of the images after another.

    Parameters
    ----------
    bundle : Bundle
        The model.
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index; whole fields with known mitoses are used.
    radius_um : float
        Greatest distance of a match.
    names : sequence of str
        Keys of `CHANGES`.

    Yields
    ------
    ChangedFigures
        One for each name, in their order.

    Raises
    ------
    DataError
        If there are no whole fields, or none of their patients has mitoses.
    """
    for name in names:
        load = functools.partial(changed_field, change=CHANGES[name])
        groups = measured_groups(bundle, root, entries, radius_um, load=load)
        yield _summed(name, figures_on_card(groups, bundle.card))


def _summed(name: str, patients: list[PointFigures]) -> ChangedFigures:
    found = pooled(
        [Detections(p.true_positives, p.false_positives, p.false_negatives, p.area_mm2) for p in patients]
    )
    if not found.tp + found.fn:
        raise DataError(
            "These fields have no mitoses, so there is no F1 to compare. Add fields with mitoses."
        )
    return ChangedFigures(
        change=name,
        mean_f1=mean_f1(patients),
        recall=found.recall,
        precision=found.precision,
        worst_false_positives_per_mm2=max(p.false_positives_per_mm2 for p in patients),
        patients=patients,
    )
