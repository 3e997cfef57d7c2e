"""The output folder: whose it is, and which name each slide's results have in it, the same in every run."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minugan_jobs.state.ledger import LEDGER, Ledger
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.atomic import not_written, write_text
from wsi_minugan.outputs.manifest import REVIEWS
from wsi_minugan.pipeline.own_files import remove_own
from wsi_minugan.slides.inputs import SlideInput, hashed_id, slide_of
from wsi_minugan.syncing import sync
from wsi_minugan.words import pluralize

KEY_FILE = "pseudonyms.csv"
_DIGEST = 64
"""Length of the digest of settings that a slide's request begins with."""


@dataclass(frozen=True)
class Known:
    """What earlier runs left in an output folder.

    Attributes
    ----------
    names : mapping of str to str
        By a slide's source, the name of its results.
    pseudonyms : bool or None
        Whether names are numbers; None where there is no slide yet.
    """

    names: Mapping[str, str]
    pseudonyms: bool | None


def known_in(out: Path) -> Known:
    """Return the slides of the runs in an output folder.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    Known
        The slides, and whether they are numbered.

    Raises
    ------
    OutputError
        If the ledger or the key to the numbers cannot be read.
    """
    if not (out / LEDGER).exists():
        return Known({}, None)
    ledger = Ledger(out)
    try:
        slides = [r.slide for r in ledger.slides()]
        pseudonyms = bool(json.loads(ledger.fact("settings") or "{}").get("pseudonyms"))
    finally:
        ledger.close()
    if not slides:
        return Known({}, None)
    if pseudonyms:
        return Known({source: name for name, source in _read_key(out).items()}, True)
    return Known({s.source: s.slide_id for s in slides}, False)


def prepare_folder(out: Path, slides: Sequence[SlideInput], overwrite: bool) -> None:
    """Make the output folder, or check that it is this batch's.

    Parameters
    ----------
    out : Path
        Output folder.
    slides : sequence of SlideInput
        The batch.
    overwrite : bool
        Whether the results of an earlier batch are removed.

    Raises
    ------
    OutputError
        If it cannot be read or written, is a file, or is another batch's.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        next(out.iterdir(), None)
        probe = out / f".probe.{os.getpid()}"
        probe.write_bytes(b"wsi-minugan")
        probe.unlink()
        # A folder is on the disk once its entry in the one above is.
        for made in (out, *out.absolute().parents):
            sync(made)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise not_written(out, e) from e
        raise OutputError(
            f"The output folder {out} cannot be used: {e.strerror or e}. Choose a folder you may read and write, on a disk with space."
        ) from e
    if overwrite:
        return
    known = known_in(out).names
    if known and not {s.source for s in slides} & set(known):
        raise OutputError(
            f"{out} holds the results of another run ({pluralize(len(known), 'slide')}, none of these). "
            "Choose another folder, or replace them with --overwrite."
        )


def remove_results(out: Path, note: Callable[[str], None]) -> frozenset[str]:
    """Remove a run's ledger and key and the results of the slides it names, and return the names of these.

    Files that somebody else put into a slide's folder stay; `note` takes sentences on files that were corrected.

    Parameters
    ----------
    out : Path
        Output folder.
    note : callable
        Takes the sentences.

    Returns
    -------
    frozenset of str
        The slides' names.
    """
    if not (out / LEDGER).exists():
        return frozenset()
    ledger = Ledger(out)
    names = [r.slide.slide_id for r in ledger.slides()]
    ledger.close()
    for name in names:
        if (out / name).parent == out and (told := remove_own(out / name)):
            note(told)
    for name in (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", KEY_FILE):
        (out / name).unlink(missing_ok=True)
    return frozenset(names)


def name_slides(
    out: Path, slides: Sequence[SlideInput], pseudonyms: bool, emptied: Collection[str] = ()
) -> tuple[SlideInput, ...]:
    """Return a batch's slides with the names that their results have in this folder.

    A slide keeps the name that an earlier run gave it, and no slide gets that of another one: results are
    never replaced by those of another slide, and a number always means the same patient.

    Parameters
    ----------
    out : Path
        Output folder.
    slides : sequence of SlideInput
        The batch.
    pseudonyms : bool
        Whether to name by number; the key then goes to `KEY_FILE`.
    emptied : collection of str
        Slides whose results were removed just now; their folders may be there still, with files of somebody else.

    Returns
    -------
    tuple of SlideInput
        The batch, in the same order.

    Raises
    ------
    OutputError
        If earlier runs named the other way, or a folder of that name is not of a run.
    """
    known = known_in(out)
    if known.pseudonyms is not None and known.pseudonyms != pseudonyms:
        how = "by number" if known.pseudonyms else "by their files"
        raise OutputError(
            f"The results in {out} are named {how}. Run with{'' if known.pseudonyms else 'out'} --pseudonyms, "
            "or choose another folder."
        )
    named = _numbered(out, slides, known.names) if pseudonyms else _kept(slides, known.names)
    ours = {name.casefold() for name in (*known.names.values(), *emptied)}
    for slide in named:
        if slide.slide_id.casefold() not in ours and _is_foreign(out / slide.slide_id):
            raise OutputError(
                f"{out / slide.slide_id} is not of a run of this program. Choose an empty folder, or move it away."
            )
    return named


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder was there before; one in which an earlier run's reviews are left is ours."""
    if not folder.is_dir():
        return folder.exists()
    return [p.name for p in folder.iterdir()] != [REVIEWS]


def slides_of(out: Path) -> tuple[SlideInput, ...]:
    """Return the slides of the runs in an output folder, for taking them again.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    tuple of SlideInput
        The slides, with their names.

    Raises
    ------
    OutputError
        If there is no run, or its key is not there.
    """
    ledger = Ledger(out, read_only=True)
    try:
        mpps = {r.slide.slide_id: r.slide.mpp for r in ledger.slides()}
    finally:
        ledger.close()
    sources = {name: source for source, name in known_in(out).names.items()}
    return tuple(slide_of(name, sources[name], mpp) for name, mpp in mpps.items() if name in sources)


def unfinished(out: Path) -> list[tuple[str, list[SlideInput]]]:
    """Return the slides of an output folder that are not done, by the settings (JSON) they were last begun with.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    list of (str, list of SlideInput)
        The settings, and the slides that were begun with them.

    Raises
    ------
    OutputError
        If there is no run, or its key is not there.
    """
    slides = {s.slide_id: s for s in slides_of(out)}
    ledger = Ledger(out, read_only=True)
    groups: dict[str, list[SlideInput]] = {}
    try:
        last = ledger.fact("settings") or "{}"
        for record in ledger.slides():
            if record.status != "done" and record.slide.slide_id in slides:
                text = ledger.fact(f"settings {record.request[:_DIGEST]}") or last
                groups.setdefault(text, []).append(slides[record.slide.slide_id])
    finally:
        ledger.close()
    return list(groups.items())


def unnamed(text: str, slide: SlideInput) -> str:
    """Return a text for others' eyes: without the slide's path, file name and stem.

    Parameters
    ----------
    text : str
        Such as an error's message.
    slide : SlideInput
        The slide that it is about.

    Returns
    -------
    str
        The text with the slide's name instead.
    """
    path = str(slide.path)
    for name in (slide.source, path, repr(path)[1:-1], f"{slide.path.parent}/", slide.path.name):
        text = text.replace(name, slide.slide_id) if len(name) > 1 else text
    if len(slide.path.stem) < 3:
        return text  # no name, and perhaps a word of the sentence
    return re.sub(rf"(?<!\w){re.escape(slide.path.stem)}(?!\w)", slide.slide_id, text)


def _numbered(out: Path, slides: Sequence[SlideInput], known: Mapping[str, str]) -> tuple[SlideInput, ...]:
    names = dict(known)
    last = max((int(n.rpartition("-")[2]) for n in names.values()), default=0)
    for slide in slides:
        if slide.source not in names:
            last += 1
            names[slide.source] = f"slide-{last:04d}"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide_id", "path"])
    writer.writerows((name, source) for source, name in names.items())
    write_text(out / KEY_FILE, text.getvalue())
    return tuple(replace(s, slide_id=names[s.source]) for s in slides)


def _read_key(out: Path) -> dict[str, str]:
    try:
        with (out / KEY_FILE).open(newline="", encoding="utf-8") as f:
            names = {row["slide_id"]: row["path"] for row in csv.DictReader(f)}
        if all(re.fullmatch(r"slide-\d+", name) for name in names):
            return names
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as e:
        raise OutputError(
            f"The results in {out} are named by number, and the key {KEY_FILE} cannot be read ({e}). "
            "Put it back as it was, or choose another folder."
        ) from e
    raise OutputError(f"{out / KEY_FILE} was changed. Put it back as it was, or choose another folder.")


def _kept(slides: Sequence[SlideInput], known: Mapping[str, str]) -> tuple[SlideInput, ...]:
    owners = {name.casefold(): source for source, name in known.items()}
    return tuple(_kept_name(s, known.get(s.source), owners) for s in slides)


def _kept_name(slide: SlideInput, before: str | None, owners: Mapping[str, str]) -> SlideInput:
    # A namesake that comes, or is not named this time, does not change a slide's name.
    if before is not None and (
        slide.slide_id == hashed_id(before, slide.source) or before == hashed_id(slide.slide_id, slide.source)
    ):
        return replace(slide, slide_id=before)
    if owners.get(slide.slide_id.casefold(), slide.source) != slide.source:
        return replace(slide, slide_id=hashed_id(slide.slide_id, slide.source))
    return slide
