"""Progress of a batch: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from wsi_minugan.words import pluralize

if TYPE_CHECKING:
    from minugan_jobs.scheduler import Event

_PLAIN_EVERY_S = 30.0


class Progress:
    """Observer of a batch; prints slides, patches/s, mm2/s and time left to stderr.

    Parameters
    ----------
    slides : int
        Number of slides.
    quiet : bool
        Print nothing but notes.
    """

    def __init__(self, slides: int, quiet: bool) -> None:
        self._slides, self._quiet = slides, quiet
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._start = self._told = time.monotonic()
        self._ended = self._patches = self._blocks = self._blocks_left = self._planned = 0
        self._mm2 = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(Text(""), console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def note(self, text: str) -> None:
        """Print a sentence.

        Parameters
        ----------
        text : str
            Plain text: markup of rich has no effect.
        """
        self._console.print(Text(text))

    def __call__(self, event: Event) -> None:
        """Take note of an event.

        Parameters
        ----------
        event : Event
            What the scheduler tells. Slides that ended are printed at once, the rest at
            most every 30 s.
        """
        if event.kind == "planned":
            self._blocks_left += event.blocks
            self._planned += 1
        elif event.kind == "block" and event.outcome is not None:
            self._blocks += 1
            self._blocks_left -= 1
            self._patches += event.outcome.patches
            self._mm2 += event.outcome.tissue_mm2
        elif event.kind in {"done", "kept", "failed"}:
            self._ended += 1
            self._tell_slide(event)
        self._show()

    def _tell_slide(self, event: Event) -> None:
        if self._quiet:
            return
        row = event.outcome.row if event.outcome else None
        if event.kind == "failed":
            text = f"failed  {event.slide_id}: {event.error}"
        elif event.kind == "kept":
            text = f"kept    {event.slide_id}: its results stay. The slide cannot be read, so changes are not seen. {event.error}"
        elif row is not None:
            text = (
                f"done    {event.slide_id}: {pluralize(row.mitoses or 0, 'mitosis', 'mitoses')} in {row.tissue_mm2 or 0:.1f} mm2, "
                f"{row.hotspot_mitoses} in the hot spot"
            )
        else:
            text = f"done    {event.slide_id}"
        self._console.print(Text(text), soft_wrap=True)
        sys.stderr.flush()

    def _show(self) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(Text(self._line(), no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._told > _PLAIN_EVERY_S:
            self._told = time.monotonic()
            self._console.print(Text(self._line()), soft_wrap=True)

    def _line(self) -> str:
        spent = max(1e-6, time.monotonic() - self._start)
        line = f"{self._ended}/{self._slides} slides  {self._patches / spent:.1f} patches/s  {self._mm2 / spent:.3f} mm2/s"
        if self._blocks and self._planned:
            unknown = max(0, self._slides - self._planned - self._ended)
            per_slide = (self._blocks + self._blocks_left) / self._planned
            left_s = (self._blocks_left + unknown * per_slide) * spent / self._blocks
            # How long writing takes is not known from what analysing took.
            left = f"{int(left_s // 3600)}:{int(left_s % 3600 // 60):02d}:{int(left_s % 60):02d} left"
            line += f"  {left if left_s > 0 else 'writing results'}"
        return line
