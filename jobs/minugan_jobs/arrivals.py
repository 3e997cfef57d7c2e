"""Slides that arrive in a folder while a scanner still writes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from wsi_minugan.errors import InputError, NoSlidesError
from wsi_minugan.slides.inputs import STALL_S, SlideInput, expand_inputs

log = logging.getLogger(__name__)

Mark = tuple[int, int, int]


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
        Longest time that a file may take to say which slide it belongs to.
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
        self._seen: dict[Path, tuple[Mark, float]] = {}
        # With their marks: a slide whose transfer broke off, and was completed later, is a new arrival.
        self._told: frozenset[tuple[Path, Mark]] = frozenset()
        self._before: frozenset[tuple[Path, Mark]] = frozenset()
        self._tell = tell
        self._stall_s = stall_s
        self._trouble: frozenset[str] = frozenset()

    def settled(self) -> tuple[SlideInput, ...]:
        """Return all settled slides when there is one that was not returned before, or has changed since, else none."""
        still = tuple(s for s in self._slides() if self._is_still(s.path))
        marked = frozenset((s.path, self._seen[s.path][0]) for s in still)
        if marked <= self._told:
            return ()
        self._before, self._told = self._told, marked
        return still

    def again(self) -> None:
        """Return the slides of the last time once more: they could not be run."""
        self._told = self._before

    def _slides(self) -> tuple[SlideInput, ...]:
        trouble: list[str] = []
        try:
            slides = expand_inputs([str(self._folder)], trouble.append, self._stall_s)
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

    def _is_still(self, path: Path) -> bool:
        try:
            mark = _mark(path)
        except OSError:
            return False
        if path not in self._seen or self._seen[path][0] != mark:
            self._seen[path] = (mark, self._now())
        return self._now() - self._seen[path][1] >= self._settle_s


def _mark(path: Path) -> Mark:
    """Return number, size and latest change of a slide's files; some formats keep theirs in a folder."""
    suffix = path.suffix.lower()
    files = [path] if path.is_file() else []
    beside = {".mrxs": path.with_suffix(""), ".zarr": path}.get(suffix)
    if beside is not None and beside.is_dir():
        files += [p for p in beside.rglob("*") if p.is_file()]
    if suffix == ".dcm":
        # Not all that lies there: results may, and each run would make its own slides new arrivals.
        files = [p for p in path.parent.iterdir() if p.suffix.lower() == suffix and p.is_file()]
    stats = [p.stat() for p in files]
    if not stats:
        raise FileNotFoundError(path)
    return len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)
