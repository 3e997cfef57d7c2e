"""The look at a slide with which its plan begins: which levels can be used, where its tissue is, and whether its pixels can be so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import TileUnreadableError
from wsi_minugan.geometry import Box, Frame
from wsi_minugan.slides.analysis import level_for, reduced
from wsi_minugan.slides.checks.blanks import black_holes, missing_in_tissue
from wsi_minugan.slides.checks.colours import refuse_impossible_colours
from wsi_minugan.slides.checks.levels import Looked, compared
from wsi_minugan.slides.checks.stains import folds_in, glass_of, inked_tissue
from wsi_minugan.slides.reader import Level, SlideInfo, SlideReader
from wsi_minugan.slides.tissue import (
    CELL_PX,
    TissueMask,
    cells_of_frame,
    everything,
    ink_of,
    tissue_in,
    tissue_of,
)
from wsi_minugan.slides.tolerant import TolerantReader

_BUSY_PLACES = 8
_MOST_TINT = 20.0
_LEAST_MM2 = 0.01
"""Folds and ink that cover less are not told: of a hot spot of 2 mm2 it is half a percent."""


@dataclass(frozen=True)
class Artefacts:
    """Cells whose tissue is not as it should be; of the shape of the tissue mask.

    Attributes
    ----------
    folded : ndarray of bool, shape (rows, columns)
        Tissue as dark as two layers of it.
    inked : ndarray of bool, shape (rows, columns)
        Pen marks on tissue.
    """

    folded: NDArray[np.bool_]
    inked: NDArray[np.bool_]

    def sentences(self, cell_mm2: float, tissue_mm2: float) -> tuple[str, ...]:
        """Return what is to be told of them, where they cover more than a speck.

        Parameters
        ----------
        cell_mm2 : float
            Area of a cell.
        tissue_mm2 : float
            Area of the tissue.

        Returns
        -------
        tuple of str
            A sentence for folds, and one for ink.
        """
        folded, inked = (float(m.sum()) * cell_mm2 for m in (self.folded, self.inked))
        found = []
        if folded >= _LEAST_MM2:
            found.append(
                f"Tissue in folds: about {folded:.2g} mm2 ({folded / max(tissue_mm2, folded):.1%} of the tissue) is as dark as two layers. "
                "Nuclei lie over each other there, so counts are less certain: look whether the hot spot lies in it."
            )
        if inked >= _LEAST_MM2:
            found.append(
                f"Tissue in ink: pen marks cover about {inked:.2g} mm2 of it. Mitoses under them are not counted. "
                "Where the hot spot is near, count there yourself, or scan the slide without the marks."
            )
        return tuple(found)


@dataclass(frozen=True)
class Survey:
    """What was seen of a slide.

    Attributes
    ----------
    tissue : TissueMask
        Where it is.
    info : SlideInfo
        The slide; its levels say which of them may be used for overviews, its notes why others are not.
    missing : tuple of Box
        Level-0 tiles in tissue that hold no data, level-0 px.
    artefacts : Artefacts
        Folds, and ink on tissue.
    plain : ndarray of bool, shape (rows, columns)
        Tissue without ink and folds, whatever the user drew; of the shape of the tissue mask.
    """

    tissue: TissueMask
    info: SlideInfo
    missing: tuple[Box, ...]
    artefacts: Artefacts
    plain: NDArray[np.bool_]


def survey(reader: SlideReader, frame: Frame, only_tissue: bool = True) -> Survey:
    """Look at a whole slide at low resolution, and at some places at full resolution.

    Parameters
    ----------
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.
    only_tissue : bool
        Whether tissue is to be found, or everything to be analysed.

    Returns
    -------
    Survey
        Tissue, levels that can be used, and sentences for the manifest.

    Raises
    ------
    NotBrightfieldError
        If the slide is dark where it should be glass.
    WrongColoursError
        If its tissue has colours that H&E cannot have.
    """
    # Lower levels are not to be read as white where they do not decode: there is a finer one.
    strict = reader.strict if isinstance(reader, TolerantReader) else reader
    factor = CELL_PX * frame.scale
    looked = compared(strict, reader.info.levels, factor)
    looked, picture = _picture(reader, strict, looked, frame)
    found, stained = _tissue(picture, frame, reader.info, only_tissue)
    unseen = list(_busy_outside(reader.info, stained))
    again = compared(strict, looked.levels, factor, unseen) if unseen else looked
    if again.levels != looked.levels:
        looked, picture = _picture(reader, strict, replace(again, notes=looked.notes + again.notes), frame)
        found, stained = _tissue(picture, frame, reader.info, only_tissue)
    refuse_impossible_colours(strict, picture, stained)
    missing = _missing(strict, frame.scale, found, picture, stained)
    notes = (*reader.info.notes, *looked.notes, *_tint(picture))
    info = replace(reader.info, levels=_no_coarser(looked.levels, factor), notes=notes)
    grey, ink = ink_of(picture)
    stained = stained & ~ink
    artefacts = Artefacts(folds_in(grey, stained), inked_tissue(ink, stained))
    return Survey(found, info, missing, artefacts, stained & ~artefacts.folded)


def _tissue(
    picture: NDArray[np.uint8], frame: Frame, info: SlideInfo, only_tissue: bool
) -> tuple[TissueMask, NDArray[np.bool_]]:
    """Return what is analysed, and where tissue is seen."""
    if not only_tissue:
        return everything(frame), tissue_of(picture)
    found = tissue_in(picture, frame, info.path)
    return found, found.mask if found.stained is None else found.stained


def _tint(picture: NDArray[np.uint8]) -> Iterator[str]:
    """Yield a sentence where glass is far from grey: tissue was found as if it were, but the network sees the slide as it is."""
    glass = glass_of(picture)
    if glass is not None and float(np.ptp(glass)) > _MOST_TINT:
        colour = ", ".join(f"{v:.0f}" for v in glass)
        yield (
            f"The glass of the slide is not grey but ({colour}) in RGB: its colours are unlike those that the network was trained on, "
            "so counts are less certain. Scan with white balance."
        )


def _picture(
    reader: SlideReader, strict: SlideReader, looked: Looked, frame: Frame
) -> tuple[Looked, NDArray[np.uint8]]:
    """Return the slide with one pixel for each cell, from the coarsest level that decodes."""
    rows, columns = cells_of_frame(frame)
    factor, levels, notes = CELL_PX * frame.scale, looked.levels, looked.notes
    while (index := level_for(levels, factor)) > 0:
        try:
            return Looked(levels, notes), reduced(strict, factor, columns, rows, levels=levels)
        except TileUnreadableError:
            levels = (*levels[:index], replace(levels[index], usable=False), *levels[index + 1 :])
            notes = (
                *notes,
                f"Level {index} of the slide has tiles that do not decode; a finer level was used in its place.",
            )
    return Looked(levels, notes), reduced(reader, factor, columns, rows, levels=levels)


def _no_coarser(levels: tuple[Level, ...], factor: float) -> tuple[Level, ...]:
    """Leave out levels that nothing was compared with: those coarser than the one that was looked at."""
    coarsest = levels[level_for(levels, factor)].downsample
    return tuple(replace(lv, usable=lv.usable and lv.downsample <= coarsest) for lv in levels)


def _busy_outside(info: SlideInfo, stained: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield places (x, y), level-0 px, that took many bytes at level 0, and where no tissue was seen."""
    rows, columns = stained.shape
    count = 0
    for x, y in info.busy_px:
        row = min(rows - 1, int(y / info.height_px * rows))
        column = min(columns - 1, int(x / info.width_px * columns))
        if not stained[row, column] and count < _BUSY_PLACES:
            count += 1
            yield x, y


def _missing(
    reader: SlideReader,
    scale: float,
    tissue: TissueMask,
    picture: NDArray[np.uint8],
    stained: NDArray[np.bool_],
) -> tuple[Box, ...]:
    """Return the level-0 tiles in tissue that hold no data, or one value in its midst."""
    seen = replace(tissue, stained=stained)
    found = missing_in_tissue(reader.missing(0), scale, seen)
    holes = black_holes(picture, stained)
    count, _, stats, _ = cv2.connectedComponentsWithStats(holes.astype(np.uint8), connectivity=8)
    side = tissue.px_per_cell * scale
    for x, y, width, height in stats[1:count, : cv2.CC_STAT_AREA].tolist():
        found.append(Box(*(round(v * side) for v in (y, x, height, width))))
    return tuple(found)
