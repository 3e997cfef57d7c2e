"""From what the user names to a list of slides."""

from __future__ import annotations

import glob
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from wsi_minugan.errors import InputError, NoSlidesError, SlideUnreadableError
from wsi_minugan.slides.checks.dicom import series_of
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.listing.folders import SLIDE_SUFFIXES, Found, matching, search
from wsi_minugan.slides.listing.table import Row, read_table

log = logging.getLogger(__name__)

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
RUN_FILES = frozenset(
    [
        "run.json",
        "slides.csv",
        "report.html",
        "log.jsonl",
        "pseudonyms.csv",
        "export",
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-shm",
    ]
)
"""Names in an output folder that no slide's folder may have."""

_NAME_BYTES = 200
_UNSAFE = re.compile(r"[^\w.\- ()\[\]',+@]", re.UNICODE)


@dataclass(frozen=True)
class SlideInput:
    """One slide of a batch.

    Attributes
    ----------
    slide_id : str
        Name of its result folder: the file's stem, with a short hash where two share it.
    path : Path
        The file.
    mpp : float or None
        The user's um/px.
    url : str
        Where a slide that is not local lies; its path is then where its copy will be. Empty for local slides.
    """

    slide_id: str
    path: Path
    mpp: float | None = None
    url: str = ""

    @property
    def source(self) -> str:
        """What the user named: a URL, or an absolute path.

        Returns
        -------
        str
            It names the slide in the ledger.
        """
        return self.url or str(self.path.absolute())


def slide_of(slide_id: str, source: str, mpp: float | None) -> SlideInput:
    """Return the slide that a `SlideInput.source` names; the ledger keeps sources as text.

    Parameters
    ----------
    slide_id : str
        The slide's name.
    source : str
        A URL or a path.
    mpp : float or None
        The user's resolution, um/px.

    Returns
    -------
    SlideInput
        The slide.
    """
    if _URL.match(source):
        return SlideInput(slide_id, Path(url_name(source)), mpp, source)
    return SlideInput(slide_id, Path(source), mpp)


def url_name(url: str) -> str:
    """Return the file name at the end of a URL, safe as a name here.

    Parameters
    ----------
    url : str
        Where the slide is.

    Returns
    -------
    str
        A name without separators.
    """
    return safe_name(PurePosixPath(unquote(urlsplit(url).path)).name)


def expand_inputs(
    sources: Sequence[str], tell: Callable[[str], None] = log.warning, guard: StallGuard | None = None
) -> tuple[SlideInput, ...]:
    """Return the slides that files, folders, globs and CSV tables name, in the order given, each once.

    Parameters
    ----------
    sources : sequence of str
        What the user typed. A file that does not exist is kept, so that it is reported as a failed slide.
    tell : callable
        Takes a sentence for each folder below these that cannot be read, and for each source without slides; the others' slides
        are returned.
    guard : StallGuard, optional
        Asks what may hang. A DICOM file that does not say its series in time is a slide by itself, and fails as such.

    Returns
    -------
    tuple of SlideInput
        In the order given.

    Raises
    ------
    InputError
        If none of the folders and patterns holds slides, one does not answer, or a table is not as it should be.
    """
    slides: list[SlideInput] = []
    empty: list[NoSlidesError] = []
    guard = guard or StallGuard()
    for source in sources:
        try:
            slides += _expand(source, tell, guard)
        except NoSlidesError as e:
            empty.append(e)
    found = _each_once(slides, guard)
    if not found:
        raise (
            empty[0] if empty else InputError("No slides were named. Give files, folders, patterns or a CSV.")
        )
    for without in empty:
        tell(f"{without} The other inputs are used.")
    return _told_apart(_one_a_series(found, guard))


def _each_once(slides: Sequence[SlideInput], guard: StallGuard) -> list[SlideInput]:
    """Return each slide once, by whatever way it was reached; what a table says of it wins over a folder that just holds it.

    Raises
    ------
    InputError
        If two tables say different things of one slide.
    """
    folders: dict[Path, Path] = {}
    found: dict[str, SlideInput] = {}
    for slide in slides:
        # A link to a folder is another way to the same slides; a link to a file is the user's own name for it.
        key = slide.url or str(_real(slide.path.parent.absolute(), folders, guard) / slide.path.name)
        before = found.setdefault(key, slide)
        if before is slide or not _is_described(slide):
            continue
        if _is_described(before) and (before.slide_id, before.mpp) != (slide.slide_id, slide.mpp):
            raise InputError(
                f"{slide.source} was named twice, with different slide_id or mpp ({_in_words(before)}; {_in_words(slide)}). "
                "Keep one of them."
            )
        found[key] = slide
    return list(found.values())


def _is_described(slide: SlideInput) -> bool:
    """Return whether the user said more of a slide than where it lies."""
    plain = slide_of(Path(url_name(slide.url)).stem, slide.url, None) if slide.url else _slide(slide.path)
    return (slide.slide_id, slide.mpp) != (plain.slide_id, None)


def _real(folder: Path, known: dict[Path, Path], guard: StallGuard) -> Path:
    """Return a folder's own path, without links; the same where it does not answer."""
    if folder not in known:
        try:
            known[folder] = guard.ask(folder, folder.resolve)
        except (OSError, RuntimeError, SlideUnreadableError):
            known[folder] = folder
    return known[folder]


def _expand(source: str, tell: Callable[[str], None], guard: StallGuard) -> list[SlideInput]:
    if _URL.match(source):
        return [slide_of(Path(url_name(source)).stem, source, None)]
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _from_csv(path)
    if suffix != ".zarr" and _asked(path, path.is_dir, guard):
        _refuse_unread(path, guard)
        found = search(path, tell, guard)
        if not found.slides:
            known = f"known endings: {' '.join(sorted(SLIDE_SUFFIXES))}"
            raise NoSlidesError(
                f"The folder {path} holds no slides ({known}). {found.left_in(str(path))}".rstrip()
            )
        return _slides(found, source, tell)
    if glob.has_magic(source) and not _asked(path, path.exists, guard):
        paths = glob.glob(source, recursive=True)  # noqa: PTH207 - patterns may be absolute
        found = matching((Path(p) for p in paths), guard)
        if not found.slides:
            raise NoSlidesError(f"The pattern {source} matches no slides. {found.left_in(source)}".rstrip())
        return _slides(found, source, tell)
    return [_slide(path)]


def _asked(path: Path, work: Callable[[], bool], guard: StallGuard) -> bool:
    """Return what a path says of itself; one named like a slide that does not is a slide, which fails as such."""
    try:
        return guard.ask(path, work)
    except (OSError, SlideUnreadableError) as e:
        if path.suffix.lower() in SLIDE_SUFFIXES:
            return False
        raise _unread(path, e) from e


def _unread(folder: Path, error: OSError | SlideUnreadableError) -> InputError:
    if isinstance(error, OSError):
        why = f"cannot be read: {error.strerror or error}"
        return InputError(
            f"The folder {folder} {why}. Check who may read it and whether the drive is connected."
        )
    return InputError(f"The folder {folder} does not answer. Check the network share or drive.")


def _refuse_unread(folder: Path, guard: StallGuard) -> None:
    try:
        guard.ask(folder, lambda: next(folder.iterdir(), None))
    except (OSError, SlideUnreadableError) as e:
        raise _unread(folder, e) from e


def _slides(found: Found, place: str, tell: Callable[[str], None]) -> list[SlideInput]:
    left = found.left_in(place)
    if left:
        tell(left)
    return [_slide(p) for p in found.slides]


def _one_a_series(slides: Sequence[SlideInput], guard: StallGuard) -> list[SlideInput]:
    """Return slides, but of the files of one DICOM series, which open as one slide, the first.

    Raises
    ------
    InputError
        If two of them were given with different slide_id or mpp.
    """
    first: dict[tuple[Path, bytes], SlideInput] = {}
    kept = []
    for slide in slides:
        series = b"" if slide.url or slide.path.suffix.lower() != ".dcm" else _series(slide.path, guard)
        # A file that does not say its series is a slide by itself: it may be damaged, and then fails as such.
        before = first.setdefault((slide.path.parent, series), slide) if series else slide
        if before is slide:
            kept.append(slide)
        elif (before.slide_id, before.mpp) != (slide.slide_id, slide.mpp):
            raise InputError(
                f"{before.source} and {slide.source} are files of one DICOM series, which is one slide, with different slide_id or mpp "
                f"({_in_words(before)}; {_in_words(slide)}). Keep one of them."
            )
    return kept


def _series(path: Path, guard: StallGuard) -> bytes:
    try:
        return guard.ask(path, partial(series_of, path))
    except SlideUnreadableError:
        return b""


def _slide(path: Path, slide_id: str | None = None, mpp: float | None = None) -> SlideInput:
    stem = path.parent.name if path.suffix.lower() == ".dcm" and slide_id is None else path.stem
    return SlideInput(safe_name(slide_id or stem), _in_utf8(path), mpp)


def _in_utf8(path: Path) -> Path:
    """Return a path that every file and table takes; a name that is no UTF-8 then fails as a slide of its own, and is shown."""
    return Path(str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def safe_name(text: str) -> str:
    """Turn any text into a name for one folder inside OUT: no separators, no leading dot, not empty, not a file of the run.

    Parameters
    ----------
    text : str
        Any name, untrusted.

    Returns
    -------
    str
        At most 120 characters.
    """
    name = _UNSAFE.sub("_", text).strip().lstrip(".")[:120]
    name = name.encode()[:_NAME_BYTES].decode("utf-8", "ignore").rstrip(" .") or "slide"
    return f"{name}-slide" if name.casefold() in RUN_FILES else name


def _from_csv(path: Path) -> list[SlideInput]:
    slides = {row.line: _from_row(path, row) for row in read_table(path)}
    _refuse_contradictions(path, slides)
    return list(slides.values())


def _refuse_contradictions(table: Path, slides: dict[int, SlideInput]) -> None:
    """Refuse a slide in two rows that are not the same: each is analysed once, and which row is meant is not known."""
    first: dict[str, int] = {}
    for line, slide in slides.items():
        before = first.setdefault(slide.source, line)
        if slides[before] != slide:
            raise InputError(
                f"The table {table} names {slide.source} in the lines {before} and {line}, with different slide_id "
                f"or mpp ({_in_words(slides[before])}; {_in_words(slide)}). Keep one of these lines."
            )


def _in_words(slide: SlideInput) -> str:
    return f"'{slide.slide_id}', " + ("no mpp" if slide.mpp is None else f"mpp {slide.mpp:g}")


def _from_row(table: Path, row: Row) -> SlideInput:
    if _URL.match(row.path):
        return slide_of(safe_name(row.slide_id or Path(url_name(row.path)).stem), row.path, row.mpp)
    # Paths in a table are relative to the table, wherever the command is started.
    return _slide(table.parent / row.path, row.slide_id or None, row.mpp)


def _told_apart(slides: list[SlideInput]) -> tuple[SlideInput, ...]:
    counts = Counter(s.slide_id.casefold() for s in slides)
    return tuple(
        replace(s, slide_id=hashed_id(s.slide_id, s.source)) if counts[s.slide_id.casefold()] > 1 else s
        for s in slides
    )


def hashed_id(slide_id: str, source: str) -> str:
    """Return the name of a slide that shares its own with another: with a short hash of its source.

    Parameters
    ----------
    slide_id : str
        The name that both have.
    source : str
        A URL or a path.

    Returns
    -------
    str
        The name, a hyphen and eight hexadecimal digits.
    """
    return f"{slide_id}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
