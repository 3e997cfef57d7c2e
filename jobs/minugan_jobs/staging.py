"""Where the engine's slides come from: at once, or copied to a local folder while the slide before is computed."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from minugan_jobs.state.disk_space import KEPT_FREE_BYTES
from minugan_jobs.state.ledger import SlideRecord
from wsi_minugan.errors import RETRY, DiskFullError, InputError, OutputError
from wsi_minugan.outputs.atomic import atomic_path
from wsi_minugan.slides.files import SEVERAL_FILES
from wsi_minugan.slides.guarded import within

log = logging.getLogger(__name__)

_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class StagedSlide:
    """A slide that can be begun, or the reason why it cannot.

    Attributes
    ----------
    record : SlideRecord
        The slide; its path is where it can be read.
    error : str
        Why it cannot be read; empty where it can.
    origin : str
        The slide's source, where its record names a copy that will be removed.
    """

    record: SlideRecord
    error: str = ""
    origin: str = ""


class Staging(Protocol):
    """Slides in the batch's order, as they become readable."""

    def take(self) -> StagedSlide | None:
        """Return the next slide, or None where none is ready now."""

    @property
    def exhausted(self) -> bool:
        """Whether none will ever come again."""

    def release(self, slide_id: str) -> None:
        """Take note that a slide is not needed any more.

        Parameters
        ----------
        slide_id : str
            The slide.
        """


class InPlace:
    """Slides that are read where they are.

    Parameters
    ----------
    records : sequence of SlideRecord
        The batch's slides.
    """

    def __init__(self, records: Sequence[SlideRecord]) -> None:
        self._waiting = deque(records)

    def take(self) -> StagedSlide | None:
        """Return the next slide.

        Returns
        -------
        StagedSlide or None
            None where none is left.
        """
        return StagedSlide(self._waiting.popleft()) if self._waiting else None

    @property
    def exhausted(self) -> bool:
        """Whether none is left.

        Returns
        -------
        bool
            True where `take` gives no more.
        """
        return not self._waiting

    def release(self, slide_id: str) -> None:
        """Do nothing: what the user has is never touched.

        Parameters
        ----------
        slide_id : str
            The slide.
        """


class StagedCopies:
    """Slides that are copied first, in a thread, a bounded number of bytes ahead.

    Parameters
    ----------
    records : sequence of SlideRecord
        The batch's slides.
    folder : Path
        Where copies go; a folder of this run's own, which workers can read. What lies in it is removed.
    limit_bytes : float
        Most that lies there, or less where the disk has less; a larger slide is copied when nothing else is there.
    stall_s : float
        Longest wait for one answer of a slide's source.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """

    def __init__(
        self, records: Sequence[SlideRecord], folder: Path, limit_bytes: float, stall_s: float
    ) -> None:
        self._folder, self._stall_s = folder, stall_s
        self._ready: deque[StagedSlide] = deque()
        self._sizes: dict[str, int] = {}
        self._left = len(records)
        self._change = threading.Condition()
        self._stopped = False
        self._limit = min(limit_bytes, _emptied(self._folder) - KEPT_FREE_BYTES)
        self._thread = threading.Thread(target=self._work, args=(tuple(records),), daemon=True)
        self._thread.start()

    def take(self) -> StagedSlide | None:
        """Return the next slide whose copy is whole.

        Returns
        -------
        StagedSlide or None
            None where no copy is whole yet.
        """
        with self._change:
            if not self._ready:
                return None
            self._left -= 1
            return self._ready.popleft()

    @property
    def exhausted(self) -> bool:
        """Whether all slides were taken.

        Returns
        -------
        bool
            True where `take` gives no more.
        """
        return self._left == 0

    def release(self, slide_id: str) -> None:
        """Remove a slide's copy.

        Parameters
        ----------
        slide_id : str
            The slide.
        """
        shutil.rmtree(self._folder / slide_id, ignore_errors=True)
        with self._change:
            self._sizes.pop(slide_id, None)
            self._change.notify_all()

    def close(self) -> None:
        """Stop copying and remove what was copied."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join(timeout=10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, records: Sequence[SlideRecord]) -> None:
        for record in records:
            try:
                found = self._stage(record)
            # Each protocol has errors of its own, and a thread that ended would leave all later slides waiting for ever.
            except Exception as e:  # noqa: BLE001
                found = StagedSlide(record, self._why(record, e))
            if self._stopped:
                return
            with self._change:
                self._ready.append(found)

    def _why(self, record: SlideRecord, error: Exception) -> str:
        todo = f"Check the address, the network and the disk, then retry the failed slides: {RETRY}"
        reason = str(error) or type(error).__name__
        if isinstance(error, ImportError):
            todo = "Install it: pip install 'wsi-minugan[remote]'"
        elif isinstance(error, DiskFullError):
            reason, todo = (
                "its disk is full",
                f"Free some space, then retry the failed slides: {RETRY}",
            )
        return f"{record.slide.source} cannot be copied to {self._folder}: {reason.rstrip('.')}. {todo}"

    def _stage(self, record: SlideRecord) -> StagedSlide:
        slide = record.slide
        if slide.path.suffix.lower() in SEVERAL_FILES:
            if slide.url:
                raise InputError("slides of several files are read from local folders only")
            return StagedSlide(record)
        if record.status == "done" and not slide.url:
            return StagedSlide(record)  # it is only looked at again, for which it need not be copied
        target = self._folder / slide.slide_id / slide.path.name
        files, path = fsspec.core.url_to_fs(slide.url) if slide.url else (LocalFileSystem(), slide.source)
        size = within(self._stall_s, Path(path), lambda: files.info(path)["size"])
        self._wait_for_room(slide.slide_id, int(size or 0))
        self._copy(files, path, target)
        copied = target.stat().st_size
        if size is not None and copied != size:
            raise InputError(f"{copied} of {size} bytes arrived")
        return StagedSlide(replace(record, slide=replace(slide, path=target)), origin=slide.source)

    def _wait_for_room(self, slide_id: str, size: int) -> None:
        with self._change:
            self._change.wait_for(
                lambda: self._stopped or not self._sizes or sum(self._sizes.values()) + size <= self._limit
            )
            self._sizes[slide_id] = size

    def _copy(self, files: fsspec.AbstractFileSystem, path: str, target: Path) -> None:
        # One slide that does not come must not keep those behind it.
        source = within(self._stall_s, Path(path), lambda: files.open(path, "rb"))
        with atomic_path(target) as temporary, temporary.open("wb") as copy:
            while not self._stopped and (
                data := within(self._stall_s, Path(path), lambda: source.read(_CHUNK_BYTES))
            ):
                copy.write(data)
        source.close()


def _emptied(folder: Path) -> int:
    """Remove what an earlier run left in a folder of copies, and return how many bytes are free there."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free
    except OSError as e:
        raise OutputError(
            f"The folder for copies {folder} cannot be used: {e.strerror or e}. Choose another with --stage-dir."
        ) from e


@contextmanager
def open_staging(
    records: Sequence[SlideRecord], stage_dir: Path | None, run: str, gb: float, stall_s: float = 60.0
) -> Iterator[Staging]:
    """Yield the source of slides that a run's settings ask for.

    Parameters
    ----------
    records : sequence of SlideRecord
        The batch's slides.
    stage_dir : Path, optional
        Where slides are copied first.
    run : str
        Name of the run's own folder in `stage_dir`.
    gb : float
        Most that lies there.
    stall_s : float
        Longest wait for one answer of a slide's source.
    """
    if stage_dir is None:
        yield InPlace(records)
        return
    staged = StagedCopies(records, stage_dir / f"wsi-minugan-{run}", gb * 1e9, stall_s)
    try:
        yield staged
    finally:
        staged.close()
