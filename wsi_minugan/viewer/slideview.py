"""One slide as the viewer's page sees it: its pixels, masks and nuclei, its review, and what it counts to."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from wsi_minugan.errors import InputError, MinuganError, TileUnreadableError
from wsi_minugan.geometry import Frame
from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.draft import (
    Draft,
    DraftToSave,
    added_objects,
    draft_of,
    objects_of,
    with_moved,
)
from wsi_minugan.review.lessons import write_lessons
from wsi_minugan.review.pixels import frame_of, open_pixels
from wsi_minugan.review.result import Result, open_result, score_of
from wsi_minugan.review.standing import standing_of
from wsi_minugan.review.store import Saved, read_review, reviewers_of, save_review
from wsi_minugan.segmentation.masks import layout, reading
from wsi_minugan.slides.reader import SlideReader
from wsi_minugan.viewer import tiles
from wsi_minugan.viewer.nuclei import TILE_PX as NUCLEI_TILE_PX
from wsi_minugan.viewer.nuclei import Nuclei

_LAYERS = ("classes", "mitosis_score", "coverage")
_READERS = 2


@dataclass(frozen=True)
class Source:
    """A finished slide to show.

    Attributes
    ----------
    folder : Path
        ``OUT/SLIDE_ID``.
    path : Path or None
        Where the slide lies; None where that is not known.
    problem : str
        Why it is not known; a sentence.
    """

    folder: Path
    path: Path | None
    problem: str = ""


class SlideView:
    """A slide that is open in the viewer; its methods may be called from several threads.

    Parameters
    ----------
    source : Source
        What to show.
    reviewer : str
        Whose review it is.

    Raises
    ------
    MinuganError
        If the result cannot be read. Where only the slide's pixels are missing, the rest is shown.
    """

    def __init__(self, source: Source, reviewer: str) -> None:
        self._source = source
        self._reviewer = reviewer
        self.result: Result = open_result(source.folder)
        self._store = source.folder / "masks.zarr"
        self._readers: queue.LifoQueue[SlideReader] = queue.LifoQueue()
        self.no_pixels = ""
        try:
            for _ in range(_READERS):
                self._readers.put(self._open_reader())
        except MinuganError as e:
            self.no_pixels = str(e)

    @property
    def frame(self) -> Frame:
        """The analysis frame.

        Returns
        -------
        Frame
            That of the run.
        """
        return frame_of(self.result.sealed)

    @cached_property
    def nuclei(self) -> Nuclei | None:
        """The nuclei, or None where the run wrote none.

        Returns
        -------
        Nuclei or None
            For the page's layer.
        """
        path = self._source.folder / "nuclei.parquet"
        slide = self.result.sealed.slide
        there = path.name in self.result.sealed.files and path.is_file()
        return Nuclei(path, slide.width_px, slide.height_px) if there else None

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Masks that can be shown.

        Returns
        -------
        tuple of str
            Names of arrays in ``masks.zarr``.
        """
        there = reading.names_in(self._store)
        return tuple(name for name in _LAYERS if name in there)

    def close(self) -> None:
        """Release the slide."""
        while not self._readers.empty():
            self._readers.get().close()

    def describe(self) -> dict[str, Any]:
        """Return all that the page needs to begin, as JSON's types.

        Returns
        -------
        dict of str to Any
            Facts of the slide, its objects, and the reviewer's draft.
        """
        slide, saved = self.result.sealed.slide, read_review(self.result, self._reviewer)
        draft = draft_of(self.result, saved)
        others = [n for n in reviewers_of(self._source.folder) if n.casefold() != self._reviewer.casefold()]
        return {
            "slide_id": slide.slide_id,
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "mpp": slide.mpp,
            "no_pixels": self.no_pixels,
            "tile_px": tiles.TILE_PX,
            "max_level": tiles.max_level(slide.width_px, slide.height_px),
            "nuclei": len(self.nuclei) if self.nuclei is not None else 0,
            "nuclei_tile_px": NUCLEI_TILE_PX,
            "masks": self.layers,
            "mask_width_px": self.frame.width_px,
            "mask_height_px": self.frame.height_px,
            "mask_scale": self.frame.scale,
            "mask_levels": len(layout.level_shapes(self.frame)),
            "mitoses": [_described(m) for m in with_moved(self.result, saved).mitoses],
            "reviewer": self._reviewer,
            # Only how many: to see what others decided would make two readings one.
            "others": len(others),
            "revision": saved.file.revision if saved else 0,
            "saved": saved.file.saved if saved else "",
            "draft": draft.model_dump(mode="json"),
            "standing": self.standing(draft, saved),
            # Those of the run's count may no longer hold; the new count tells its own.
            "warnings": [w for w in self.result.sealed.warnings if w not in self.result.count.warnings],
        }

    def standing(self, draft: Draft, saved: Saved | None = None) -> dict[str, Any]:
        """Return what a draft counts to and what to look at next, as JSON's types.

        Parameters
        ----------
        draft : Draft
            What the reviewer did so far.
        saved : Saved, optional
            The review on the disk; read where it is not given.

        Returns
        -------
        dict of str to Any
            Count, interval, scores, and the next object.
        """
        saved = saved or read_review(self.result, self._reviewer)
        added = added_objects(self.result, saved, draft)
        untouched = saved is None and not draft.verdicts and not draft.added
        state = standing_of(with_moved(self.result, saved), draft.by_id, added, untouched)
        return {
            "count": state.count.model_dump(mode="json"),
            "settled": state.settled,
            "least": state.least,
            "most": state.most,
            "queue": state.queue,
            "pivotal": state.pivotal,
        }

    def save(self, draft: DraftToSave) -> dict[str, Any]:
        """Save a draft with its images for training; returns the new revision and its time.

        Parameters
        ----------
        draft : DraftToSave
            What the reviewer did.

        Returns
        -------
        dict of str to Any
            JSON's types.
        """
        saved = read_review(self.result, self._reviewer)
        added = added_objects(self.result, saved, draft)
        objects = objects_of(self.result, saved, draft, added)
        done = save_review(self.result, objects, self._reviewer, "view", draft.revision)
        if not self.no_pixels:
            with self._reader() as reader:
                write_lessons(self.result, done, reader, self.frame)
        return {"revision": done.file.revision, "saved": done.file.saved}

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Return a tile of the slide as JPEG; one that does not decode is grey.

        Parameters
        ----------
        level : int
            Of OpenSeadragon's pyramid.
        column, row : int
            Which tile.

        Returns
        -------
        bytes
            A JPEG file.
        """
        with self._reader() as reader:
            try:
                return tiles.slide_tile(reader, level, column, row)
            except TileUnreadableError:
                return tiles.unreadable_tile()

    def crop(self, x_px: float, y_px: float) -> bytes:
        """Return the surroundings of a place, level-0 px, as JPEG.

        Parameters
        ----------
        x_px, y_px : float
            The place, level-0 px.

        Returns
        -------
        bytes
            A JPEG file.
        """
        with self._reader() as reader:
            try:
                return tiles.crop(reader, self.frame, x_px, y_px)
            except TileUnreadableError:
                return tiles.unreadable_tile()

    def mask(self, name: str, level: int, column: int, row: int) -> bytes:
        """Return a tile of a mask as PNG.

        Parameters
        ----------
        name : str
            One of `layers`.
        level : int
            0 is the coarsest.
        column, row : int
            Which tile.

        Returns
        -------
        bytes
            A PNG file.

        Raises
        ------
        InputError
            If there is no such mask or tile.
        """
        if name not in self.layers:
            raise InputError(f"There is no mask {name}.")
        return tiles.mask_tile(self._store, name, self.frame, level, column, row)

    def _open_reader(self) -> SlideReader:
        if self._source.path is None:
            raise InputError(self._source.problem)
        return open_pixels(self.result.sealed, self._source.path)

    @contextmanager
    def _reader(self) -> Iterator[SlideReader]:
        """Lend an open reader: none is safe in two threads at once."""
        if self.no_pixels:
            raise InputError(self.no_pixels)
        reader = self._readers.get()
        try:
            yield reader
        finally:
            self._readers.put(reader)


def _described(mitosis: Marked) -> dict[str, Any]:
    x, y = mitosis.centre_px
    parts = [p for p in shapely.get_parts(mitosis.shape) if p.geom_type == "Polygon"]
    rings = [np.round(shapely.get_coordinates(p.exterior), 2).ravel().tolist() for p in parts]
    return {
        "id": mitosis.id,
        "x": round(x, 2),
        "y": round(y, 2),
        "score": round(score_of(mitosis), 4),
        "rings": rings,
    }
