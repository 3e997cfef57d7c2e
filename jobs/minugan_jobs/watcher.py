"""Slides that arrive in a folder while a scanner still writes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from wsi_minugan.errors import InputError, NoSlidesError
from wsi_minugan.slides.files import FileSignature, signatures_of
from wsi_minugan.slides.guarded import STALL_S, StallGuard
from wsi_minugan.slides.inputs import SlideInput, expand_inputs

log = logging.getLogger(__name__)


class Arrivals:
    """Tells which slides of a folder have stopped growing.

    Parameters
    ----------
    folder : Path
        Where slides arrive.
    settle_s : float
        How long a file's size and time must not have changed.
    now : callable
        The clock, in seconds.
    tell : callable
        Takes a sentence where the folder, or one below it, cannot be read; each once until it can be read again.
    stall_s : float
        Longest time that a file or folder may take to answer; one that hangs is asked again once it has answered.

    Attributes
    ----------
    fresh : frozenset of str
        Sources of the slides that were new or changed the last time. Else each new one would have all that are done looked at again.
    """

    def __init__(
        self,
        folder: Path,
        settle_s: float,
        now: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = log.warning,
        stall_s: float = STALL_S,
    ) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._now = now
        self._seen: dict[Path, tuple[FileSignature, float]] = {}
        # With their signatures: a slide whose transfer broke off, and was completed later, is a new arrival.
        self._told: frozenset[tuple[Path, FileSignature]] = frozenset()
        self._before: frozenset[tuple[Path, FileSignature]] = frozenset()
        self._tell = tell
        self._guard = StallGuard(stall_s)
        self.fresh: frozenset[str] = frozenset()
        self._trouble: frozenset[str] = frozenset()

    def settled(self) -> tuple[SlideInput, ...]:
        """Return all settled slides when there is one that was not returned before, or has changed since, else none.

        Returns
        -------
        tuple of SlideInput
            Those whose files do not change any more.
        """
        slides = self._slides()
        seen = signatures_of((s.path for s in slides), self._guard)
        still = tuple(s for s in slides if s.path in seen and self._is_still(s.path, seen[s.path]))
        signatures = {s.source: (s.path, self._seen[s.path][0]) for s in still}
        self.fresh = frozenset(
            source for source, signature in signatures.items() if signature not in self._told
        )
        if not self.fresh:
            return ()
        self._before, self._told = self._told, frozenset(signatures.values())
        return still

    def again(self) -> None:
        """Return the slides of the last time once more: they could not be run."""
        self._told = self._before

    def _slides(self) -> tuple[SlideInput, ...]:
        trouble: list[str] = []
        try:
            slides = expand_inputs([str(self._folder)], trouble.append, self._guard)
        except NoSlidesError:
            slides = ()
        except InputError as e:
            slides = ()
            trouble.append(str(e))
        for text in trouble:
            if text not in self._trouble:
                self._tell(text)
        self._trouble = frozenset(trouble)
        return slides

    def _is_still(self, path: Path, signature: FileSignature) -> bool:
        if path not in self._seen or self._seen[path][0] != signature:
            self._seen[path] = (signature, self._now())
        return self._now() - self._seen[path][1] >= self._settle_s
