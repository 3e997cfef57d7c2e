"""Slides that arrive in a folder while a scanner still writes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from wsi_minugan.errors import InputError
from wsi_minugan.slides.inputs import SlideInput, expand_inputs


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
    """

    def __init__(self, folder: Path, settle_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._now = now
        self._seen: dict[Path, tuple[tuple[int, int, int], float]] = {}
        self._told: frozenset[Path] = frozenset()

    def settled(self) -> tuple[SlideInput, ...]:
        """Return all settled slides when there is one that was not returned before, else none."""
        try:
            slides = expand_inputs([str(self._folder)])
        except InputError:
            return ()
        still = tuple(s for s in slides if self._is_still(s.path))
        paths = frozenset(s.path for s in still)
        if paths <= self._told:
            return ()
        self._told = paths
        return still

    def _is_still(self, path: Path) -> bool:
        try:
            mark = _mark(path)
        except OSError:
            return False
        if path not in self._seen or self._seen[path][0] != mark:
            self._seen[path] = (mark, self._now())
        return self._now() - self._seen[path][1] >= self._settle_s


def _mark(path: Path) -> tuple[int, int, int]:
    """Return number, size and latest change of a slide's files; some formats keep theirs in a folder."""
    suffix = path.suffix.lower()
    files = [path] if path.is_file() else []
    beside = {".mrxs": path.with_suffix(""), ".dcm": path.parent, ".zarr": path}.get(suffix)
    if beside is not None and beside.is_dir():
        files += [p for p in beside.rglob("*") if p.is_file()]
    stats = [p.stat() for p in files]
    if not stats:
        raise FileNotFoundError(path)
    return len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)
