"""A slide's stain, looked at once from tissue spread over the slide, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import PATCH_PX
from wsi_minugan.errors import ModelError
from wsi_minugan.geometry import Box, Frame, evenly
from wsi_minugan.minugan.card import ModelCard, StainNormalisation
from wsi_minugan.minugan.stain import StainMap, StainStatistics, map_between, slide_stain
from wsi_minugan.outputs.models import StainFacts
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.reader import SlideReader
from wsi_minugan.slides.tissue import CELL_PX

StainSetting = Literal["auto", "none", "always"]

_PATCHES = 64
"""Patches that tell a slide's stain: enough for a median, and read in about a second."""
_NAMES = ("haematoxylin", "eosin")
"""What the rest beside them holds is too little to warn of."""


@dataclass(frozen=True)
class StainWish:
    """What is to become of slides' stains.

    Attributes
    ----------
    known : StainNormalisation
        What the model's card says of stains.
    applied : bool
        Whether slides are brought to the card's target.
    """

    known: StainNormalisation
    applied: bool


@dataclass(frozen=True)
class SlideStain:
    """A slide's stain.

    Attributes
    ----------
    own : StainStatistics
        Estimated from its tissue.
    to_target : StainMap
        The map from there to the target of the model's card.
    applied : bool
        Whether the network sees the slide through that map.
    """

    own: StainStatistics
    to_target: StainMap
    applied: bool


def stain_wish(card: ModelCard, setting: StainSetting) -> StainWish | None:
    """Return what a run makes of slides' stains; None where the card says nothing of stains.

    Parameters
    ----------
    card : ModelCard
        The model's card.
    setting : {"auto", "none", "always"}
        The run's.

    Returns
    -------
    StainWish or None
        For `plan_slide`.

    Raises
    ------
    ModelError
        If stains are to be normalised always, and the card has no target.
    """
    if card.stain is None:
        if setting == "always":
            raise ModelError(
                f"The model {card.name} {card.version} has no target stain on its card. Run with --stain auto, "
                "or give a model that has one: 'minugan-train stain' measures it, and 'minugan-train export --stain' writes it."
            )
        return None
    return StainWish(card.stain, setting == "always" or (setting == "auto" and card.stain.switched_on))


def look_at_stain(
    reader: SlideReader, frame: Frame, plain: NDArray[np.bool_], wish: StainWish
) -> SlideStain | None:
    """Estimate a slide's stain from patches spread evenly over its tissue, wherever blocks and regions lie.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.
    plain : ndarray of bool, shape (rows, columns)
        Cells that hold tissue without ink and folds.
    wish : StainWish
        The target.

    Returns
    -------
    SlideStain or None
        None where no patch holds enough tissue.
    """
    view = AnalysisView(reader, frame)
    own = slide_stain(view.read(box) for box in _spread(plain))
    return None if own is None else SlideStain(own, map_between(own, wish.known.target), wish.applied)


def _spread(plain: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield patches around cells that are spread evenly over all of them, analysis px."""
    cells = np.argwhere(plain)
    for k in evenly(len(cells), _PATCHES):
        y, x = (int(v) * CELL_PX + (CELL_PX - PATCH_PX) // 2 for v in cells[k])
        yield Box(y, x, PATCH_PX, PATCH_PX)


def facts_of(stain: SlideStain | None) -> StainFacts | None:
    """Return what the manifest says of a slide's stain.

    Parameters
    ----------
    stain : SlideStain or None
        The slide's.

    Returns
    -------
    StainFacts or None
        Part of the manifest.
    """
    if stain is None:
        return None
    own, how = stain.own, stain.to_target
    return StainFacts(
        mean=own.mean, spread=own.spread, matrix=how.matrix, offset=how.offset, applied=stain.applied
    )


def sentences_of(stain: SlideStain | None, wish: StainWish) -> tuple[str, ...]:
    """Return what is to be told of a slide's stain.

    Parameters
    ----------
    stain : SlideStain or None
        The slide's.
    wish : StainWish
        The stains of the training data.

    Returns
    -------
    tuple of str
        A sentence where the stain is outside of these, and one where it could not be estimated though it was to be normalised.
    """
    if stain is None:
        if not wish.applied:
            return ()
        return (
            "The slide's stain could not be estimated, as too little tissue was found on it, so it was analysed as it is. "
            "Look at the mitoses that were found.",
        )
    far = [*_outside(stain.own, wish.known)]
    if not far:
        return ()
    return (
        f"The stain is outside of what the model was trained on: {'; '.join(far)}. Its figures may not hold here: look at the mitoses "
        "that it found and at some tissue where it found none.",
    )


def _outside(own: StainStatistics, known: StainNormalisation) -> Iterator[str]:
    """Yield in words what is outside of the training data's stains."""
    for k, name in enumerate(_NAMES):
        low, high = known.low.mean[k], known.high.mean[k]
        if not low <= own.mean[k] <= high:
            side = "paler" if own.mean[k] < low else "darker"
            yield f"{name} is {side} (density {own.mean[k]:.2f}, there {low:.2f} to {high:.2f})"
        low, high = known.low.spread[k], known.high.spread[k]
        if not low <= own.spread[k] <= high:
            side = "more even" if own.spread[k] < low else "less even"
            yield f"{name} is {side} (spread {own.spread[k]:.2f}, there {low:.2f} to {high:.2f})"
