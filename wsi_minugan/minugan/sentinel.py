"""Whether a slide looks like what a model was trained on: its stain, its focus and its compression against a range.

A model's figures hold for images like those that they were measured on. These are simple figures of pixels, with no network, so that
a warning can say what is unlike: the stain, the sharpness, or the compression.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError

from wsi_minugan.errors import ModelError
from wsi_minugan.frozen import FrozenModel

RANGE_FILE = "range.json"
Kind = Literal["stain", "focus", "compression"]

FIGURES: dict[str, Kind] = {
    "density": "stain",
    "red_excess": "stain",
    "blue_excess": "stain",
    "contrast": "stain",
    "fine_detail": "focus",
    "medium_detail": "focus",
    "block_edges": "compression",
}
"""What each figure speaks for."""

STAIN = tuple(name for name, kind in FIGURES.items() if kind == "stain")
NEIGHBOURS = 3
"""Stains differ between scanners in several ways at once, so a slide's is compared with the nearest of the training data: this many."""

_ONE_SIDED = {"fine_detail": -1, "medium_detail": -1, "block_edges": 1}
"""Only blur and strong compression are told of, not that a slide is sharper or less compressed than the training data."""

_TISSUE_DENSITY = 0.1
_LEAST_TISSUE = 0.25
"""Least share of a patch that is tissue, so that its figures are those of tissue."""

_BLOCK_PX = 8  # of JPEG
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Limits(FrozenModel):
    """The range of one figure in the training data."""

    model_config = ConfigDict(allow_inf_nan=False)

    low: float
    high: float


class TrainingRange(FrozenModel):
    """Content of range.json, beside a model's card: the range of each figure over the images it was trained on."""

    schema_version: Literal[1] = 1
    figures: dict[str, Limits] = Field(
        description="Of focus and compression, by name; see minugan/sentinel.py."
    )
    stains: tuple[tuple[float, float, float, float], ...] = Field(
        min_length=10,
        description="Figures of stain of each image: density, red_excess, blue_excess, contrast.",
    )
    stain_limit: float = Field(
        gt=0, description="Largest distance to the nearest of these that is no warning."
    )
    images: int = Field(ge=1)
    data: tuple[str, ...] = Field(description="Data sets and scanners that were measured.")


def figures_of(patch: NDArray[np.uint8]) -> dict[str, float] | None:
    """Return the figures of a patch, or None where too little of it is tissue.

    Parameters
    ----------
    patch : ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution.

    Returns
    -------
    dict of str to float
        density (mean optical density of tissue), red_excess and blue_excess (that of red and of blue less green's, by density), contrast
        (spread of the density, by density); fine_detail and medium_detail (logarithm of detail below 1 px, and of 1 to 2 px, against that
        of 2 to 4 px); block_edges (logarithm of steps at the edges of blocks of 8 px against those between).
    """
    density = -np.log10((patch.astype(np.float32) + 1) / 256)
    grey = density.mean(axis=2)
    tissue = grey > _TISSUE_DENSITY
    if tissue.mean() < _LEAST_TISSUE:
        return None
    red, green, blue = (float(density[..., k][tissue].mean()) for k in range(3))
    mean = max(1e-6, (red + green + blue) / 3)
    return {
        "density": mean,
        "red_excess": (red - green) / mean,
        "blue_excess": (blue - green) / mean,
        "contrast": float(grey[tissue].std()) / mean,
        **_detail(grey),
        "block_edges": _block_edges(patch),
    }


def _detail(grey: NDArray[np.float32]) -> dict[str, float]:
    levels = [grey, *(cv2.GaussianBlur(grey, (0, 0), s) for s in (1.0, 2.0, 4.0))]
    fine, medium, coarse = (float((a - b).std()) + 1e-6 for a, b in pairwise(levels))
    return {"fine_detail": float(np.log(fine / coarse)), "medium_detail": float(np.log(medium / coarse))}


def _block_edges(patch: NDArray[np.uint8]) -> float:
    """Return how much larger steps at JPEG's block edges are, whichever pixel its grid begins at; the mean of both axes."""
    grey = patch.astype(np.float32) @ _LUMA
    found = []
    for image in (grey, grey.T):
        steps = np.abs(image[:, 1:] - image[:, :-1]).mean(axis=0)
        phases = np.array([steps[k::_BLOCK_PX].mean() for k in range(_BLOCK_PX)]) + 1e-3
        found.append(float(np.log(phases.max() / np.median(phases))))
    return sum(found) / len(found)


def slide_figures(patches: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """Return the median of each figure over patches; empty where none holds enough tissue.

    Parameters
    ----------
    patches : iterable of ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution.

    Returns
    -------
    dict of str to float
        By the names in `FIGURES`.
    """
    found = [f for f in map(figures_of, patches) if f is not None]
    return {name: round(float(np.median([f[name] for f in found])), 4) for name in FIGURES} if found else {}


def strangeness(figures: Mapping[str, float], known: TrainingRange) -> dict[Kind, float]:
    """Return how unlike the training data a slide is, by kind: above 1 is outside of what is known.

    Parameters
    ----------
    figures : mapping of str to float
        The slide's, as `slide_figures` returns them.
    known : TrainingRange
        Range of the figures in the model's training data; see `load_range`.

    Returns
    -------
    dict of str to float
        By kind. Focus and compression: distance from the middle of the range, in half ranges. Stain: distance to the training images,
        over its limit. Of several figures of a kind the one furthest out counts.
    """
    out: dict[Kind, float] = {}
    for name, side in _ONE_SIDED.items():
        limits = known.figures.get(name)
        if limits is None or name not in figures:
            continue
        half = max(1e-9, (limits.high - limits.low) / 2)
        away = side * (figures[name] - (limits.low + limits.high) / 2) / half
        out[FIGURES[name]] = max(out.get(FIGURES[name], -np.inf), float(away))
    if all(name in figures for name in STAIN):
        own = np.array([[figures[name] for name in STAIN]])
        examples = np.array(known.stains)
        out["stain"] = float(_distances(own, examples, NEIGHBOURS)[0]) / known.stain_limit
    return out


def _distances(
    stains: NDArray[np.float64], examples: NDArray[np.float64], neighbour: int
) -> NDArray[np.float64]:
    """Return the distance of each stain to its nearest examples, the n-th, in units of their spread; shapes (m, 4), (n, 4) to (m,)."""
    own, known = (np.column_stack([np.log(np.maximum(1e-3, v[:, 0])), v[:, 1:]]) for v in (stains, examples))
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(known.T) + 1e-9 * np.eye(len(STAIN))))
    own, known = ((v - known.mean(axis=0)) @ whiten.T for v in (own, known))
    away = np.sqrt(((own[:, None] - known[None]) ** 2).sum(axis=-1))
    found: NDArray[np.float64] = np.sort(away, axis=1)[:, neighbour - 1]
    return found


_SENTENCES: dict[Kind, str] = {
    "stain": "The stain is unlike that of the images that the model was trained on, so its figures may not hold here: look at the mitoses "
    "that it found and at some tissue where it found none.",
    "focus": "The slide is less sharp than the images that the model was trained on, so mitoses may be missed: look whether it is out of "
    "focus, and scan it again.",
    "compression": "The slide is compressed more strongly than the images that the model was trained on, so mitoses may be missed: scan or "
    "export it again with a higher quality.",
}


def warnings_of(figures: Mapping[str, float], known: TrainingRange) -> tuple[str, ...]:
    """Return a sentence for each way in which a slide is unlike the training data.

    Parameters
    ----------
    figures : mapping of str to float
        The slide's, as `slide_figures` returns them.
    known : TrainingRange
        Range of the figures in the model's training data; see `load_range`.

    Returns
    -------
    tuple of str
        Empty for a slide like those of the training data.
    """
    return tuple(_SENTENCES[kind] for kind, far in strangeness(figures, known).items() if far > 1)


def range_of(
    found: Iterable[Mapping[str, float]], data: Iterable[str], share: float = 0.98, margin: float = 0.15
) -> TrainingRange:
    """Return the range of figures of many images: that of a share of them.

    Parameters
    ----------
    found : iterable of mapping of str to float
        Figures of `slide_figures`, one for each image.
    data : iterable of str
        What was measured, in words.
    share, margin : float
        Share of the images inside, and how much the ranges of focus and compression are widened on each side, by their width.

    Returns
    -------
    TrainingRange
        What `load_range` reads back.
    """
    rows = [f for f in found if f]
    tail = (1 - share) / 2
    limits = {}
    for name in _ONE_SIDED:
        low, high = np.quantile([f[name] for f in rows], [tail, 1 - tail])
        wider = margin * (high - low)
        limits[name] = Limits(low=round(float(low - wider), 4), high=round(float(high + wider), 4))
    stains = np.round([[f[name] for name in STAIN] for f in rows], 3)
    # An image is its own nearest example, so one more is counted.
    limit = float(np.quantile(_distances(stains, stains, NEIGHBOURS + 1), share))
    return TrainingRange(
        figures=limits, stains=tuple(map(tuple, stains.tolist())), stain_limit=round(limit, 4), images=len(rows),
        data=tuple(data),
    )  # fmt: skip


def load_range(bundle: Path) -> TrainingRange | None:
    """Return the range beside a model's card; None where the model has none.

    Parameters
    ----------
    bundle : Path
        The model's folder.

    Returns
    -------
    TrainingRange or None
        Content of ``range.json``.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    path = bundle / RANGE_FILE
    if not path.is_file():
        return None
    try:
        return TrainingRange.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError, RecursionError) as e:
        raise ModelError(
            f"{path} cannot be read: {e}. Copy the model again, or remove this file: slides are then not compared with its data."
        ) from e
