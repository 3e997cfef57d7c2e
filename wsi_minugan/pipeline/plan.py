"""What is to be done on one slide, decided before any pixel reaches the network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from wsi_minugan.config import Precision, RunSettings
from wsi_minugan.counting.regions import centres_in
from wsi_minugan.errors import NoTissueError
from wsi_minugan.geometry import UM2_PER_MM2, Box, Frame, analysis_frame, blocks_of
from wsi_minugan.minugan.stain import StainMap
from wsi_minugan.pipeline.areas import Drawn, read_drawn
from wsi_minugan.pipeline.areas import within as drawn_within
from wsi_minugan.pipeline.ground import raster_of
from wsi_minugan.pipeline.planning.slide_stain import SlideStain, StainWish, look_at_stain, sentences_of
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.slides.checks.streams import refuse_broken_streams
from wsi_minugan.slides.checks.survey import Artefacts, survey
from wsi_minugan.slides.guarded import GuardedReader, within
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.reader import SlideInfo, SlideReader, resolve_mpp, unused_mpp
from wsi_minugan.slides.tissue import TissueMask
from wsi_minugan.slides.tolerant import TolerantReader, without_broken_tiles
from wsi_minugan.words import pluralize

UPSAMPLED_BELOW = 0.9
NEARLY_ALL = 0.97
"""Share of a slide from which on it is said that all of it is tissue; whole slides have glass, cut-out fields have none."""


@dataclass(frozen=True)
class SlidePlan:
    """What is to be done on one slide.

    Attributes
    ----------
    slide : SlideInput
        Identifier, path and the user's mpp.
    info : SlideInfo
        The slide as its reader sees it.
    frame : Frame
        Analysis frame.
    mpp_source : str
        Where the resolution came from.
    tissue : TissueMask
        What is analysed.
    blocks : tuple of Box
        Blocks that hold tissue, analysis px, in raster order.
    block_px : int
        Side of a whole block.
    stride_px : int
        Distance of patches, analysis px.
    broken_tiles : int
        Tiles with tissue that do not decode and are left out.
    precision : str
        Arithmetic of the network, one for the whole slide, whatever machines take part.
    key : str
        Digest of the work that it was made for; empty outside of a run.
    drawn : Drawn
        What the user drew: only what lies in it counts.
    stain : SlideStain or None
        The slide's stain; None where the model's card says nothing of stains, or no tissue shows it.
    patches_across : int
        Side of the square of patches that the model sees at once.
    """

    slide: SlideInput
    info: SlideInfo
    frame: Frame
    mpp_source: str
    tissue: TissueMask
    blocks: tuple[Box, ...]
    block_px: int
    stride_px: int
    broken_tiles: int = 0
    precision: Precision = "auto"
    key: str = ""
    drawn: Drawn = field(default_factory=Drawn)
    stain: SlideStain | None = None
    patches_across: int = 1

    @property
    def grid(self) -> PatchGrid:
        """The slide's patches, or the windows of several that the model sees at once; independent of its blocks.

        Returns
        -------
        PatchGrid
            In analysis px.
        """
        frame = self.frame
        return PatchGrid.of_windows(frame.height_px, frame.width_px, self.stride_px, self.patches_across)

    @property
    def stain_map(self) -> StainMap | None:
        """What is done to patches before the network sees them: one map for the whole slide.

        Returns
        -------
        StainMap or None
            None where the slide is analysed as it is.
        """
        return self.stain.to_target if self.stain is not None and self.stain.applied else None

    @property
    def tissue_mm2(self) -> float:
        """Area of the tissue that is analysed; the margin around it is not counted, nor what lies outside of a region.

        Returns
        -------
        float
            mm2.
        """
        if self.drawn.allowed is None:
            return self.tissue.area_mm2(self.frame.mpp)
        return raster_of(self.tissue, self.frame.scale).area_mm2(self.frame.level0_mpp, self.drawn.allowed)

    @property
    def order(self) -> list[int]:
        """The blocks' indices as they are best analysed.

        First every other one, as on a chessboard: what two neighbours share is there when the second begins, and is not
        computed twice. Within a colour those with most tissue first, so that no worker is left with a large one at the end.

        Returns
        -------
        list of int
            Each block once.
        """
        tissue = [int(self.tissue.mask[self.tissue.cells_of(b)].sum()) for b in self.blocks]
        colour = [(b.y_px + b.x_px) // self.block_px % 2 for b in self.blocks]
        return sorted(range(len(self.blocks)), key=lambda k: (colour[k], -tissue[k]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that belong into manifest and report.

        Returns
        -------
        tuple of str
            Empty for a slide without peculiarities.
        """
        found = []
        if self.frame.scale < UPSAMPLED_BELOW:
            found.append(
                f"The slide has {self.frame.level0_mpp:.3f} um/px and was enlarged to {self.frame.mpp:.3f} um/px: "
                "fine detail that the network was trained on is missing, so counts are less certain."
            )
        if self.broken_tiles:
            one = self.broken_tiles == 1
            verbs = "does not decode and was" if one else "do not decode and were"
            found.append(
                f"{pluralize(self.broken_tiles, 'tile')} {verbs} not analysed; areas and counts are without {'it' if one else 'them'}."
            )
        if self.tissue.stained is not None and self.tissue.share > NEARLY_ALL:
            found.append(
                f"Nearly all of the slide ({self.tissue.share:.0%}) was taken for tissue. Look at overview.png: where glass was taken for "
                "tissue, areas and what is counted per mm2 are wrong."
            )
        return (*found, *self.info.notes)

    def nameless(self) -> SlidePlan:
        """Return the plan without the slide's path, for runs whose results must not show it.

        Returns
        -------
        SlidePlan
            The slide's id stands in the path's place.
        """
        path = Path(self.slide.slide_id)
        slide = replace(self.slide, path=path, url="")
        return replace(self, slide=slide, info=replace(self.info, path=path))

    def patches_of(self, box: Box) -> list[tuple[int, int]]:
        """Return the patches that reach `box` and see tissue; the second does not depend on the box.

        Parameters
        ----------
        box : Box
            Analysis px.

        Returns
        -------
        list of tuple of int
            Row and column of each patch.
        """
        grid = self.grid
        return [ij for ij in grid.patches_for(box) if self.tissue.any_in(grid.box(*ij))]


def plan_slide(
    slide: SlideInput,
    reader: SlideReader,
    settings: RunSettings,
    model_mpp: float,
    wish: StainWish | None = None,
    patches_across: int = 1,
) -> SlidePlan:
    """Find a slide's frame, tissue and blocks.

    Parameters
    ----------
    slide : SlideInput
        The slide.
    reader : SlideReader
        The open slide.
    settings : RunSettings
        Resolution, stride, blocks and regions.
    model_mpp : float
        um/px that the model wants.
    wish : StainWish, optional
        What is to become of the slide's stain, of `stain_wish`.
    patches_across : int
        Side of the square of patches that the model sees at once.

    Returns
    -------
    SlidePlan
        All that the stages need to know.

    Raises
    ------
    MppError
        If no plausible resolution is known, or two that contradict each other.
    WrongColoursError
        If the tissue has colours that H&E cannot have.
    TileUnreadableError
        If tiles with tissue do not decode or hold no data, and are not tolerated.
    NoTissueError
        If there is nothing to analyse.
    """
    info = reader.info
    mpp, source = resolve_mpp(info, slide.mpp, settings.mpp)
    frame = analysis_frame(info.width_px, info.height_px, mpp, model_mpp)
    tolerant = isinstance(reader, TolerantReader)
    within(settings.stall_s, info.path, partial(refuse_broken_streams, info, tolerant))
    drawn = read_drawn(settings, slide.slide_id, info.width_px, info.height_px, _origin(settings, info))
    seen = survey(reader, frame, settings.tissue and not drawn.own_tissue)
    tissue = seen.tissue
    if drawn.allowed is not None:
        tissue = drawn_within(tissue, drawn.allowed, frame, patches_across)
    tissue, broken = without_broken_tiles(reader, frame, tissue, seen.missing, settings.tolerate_tiles)
    blocks = tuple(b for b in blocks_of(frame, settings.block_px) if tissue.any_in(b))
    if not blocks:
        raise NoTissueError(
            f"No tissue was found in {slide.path}. If the slide does hold tissue, analyse all of it with --no-tissue."
        )
    stain = None if wish is None else look_at_stain(reader, frame, seen.plain, wish)
    return SlidePlan(
        slide=slide,
        info=_told(
            seen.info,
            unused_mpp(info, mpp, settings.mpp, slide.mpp),
            *_artefacts(seen.artefacts, tissue, drawn, frame),
            *(sentences_of(stain, wish) if wish else ()),
        ),
        frame=frame,
        mpp_source=source,
        tissue=tissue,
        blocks=blocks,
        block_px=settings.block_px,
        stride_px=settings.stride_px,
        broken_tiles=broken,
        precision=settings.precision,
        drawn=drawn,
        stain=stain,
        patches_across=patches_across,
    )


def _told(info: SlideInfo, *notes: str | None) -> SlideInfo:
    return replace(info, notes=(*info.notes, *(n for n in notes if n is not None)))


def _artefacts(found: Artefacts, tissue: TissueMask, drawn: Drawn, frame: Frame) -> tuple[str, ...]:
    """Return what is told of folds and ink, where it is counted."""
    if drawn.allowed is not None:
        inside = centres_in(drawn.allowed, tissue.mask.shape, tissue.px_per_cell * frame.scale)
        found = Artefacts(found.folded & inside, found.inked & inside)
    cell_mm2 = (tissue.px_per_cell * frame.mpp) ** 2 / UM2_PER_MM2
    return found.sentences(cell_mm2, tissue.area_mm2(frame.mpp))


def _origin(settings: RunSettings, info: SlideInfo) -> tuple[int, int]:
    """Return what coordinates of files count from that do not say it: QuPath's own, where it crops a slide to its bounds."""
    return info.bounds_px if settings.bounds_offset else (0, 0)


def open_reader(path: Path, settings: RunSettings) -> SlideReader:
    """Open a slide as a run does: reads that hang are given up, and broken tiles left out where that is allowed.

    Parameters
    ----------
    path : Path
        The slide.
    settings : RunSettings
        Which reader, how long to wait, and whether broken tiles are allowed.

    Returns
    -------
    SlideReader
        The open slide.

    Raises
    ------
    SlideUnreadableError
        If it cannot be opened, or does not answer in time.
    """
    opened = within(settings.stall_s, path, lambda: open_slide(path, settings.reader))
    reader: SlideReader = GuardedReader(opened, settings.stall_s)
    return TolerantReader(reader) if settings.tolerate_tiles else reader
