"""Where a reviewer's files lie: a folder for each, inside the slide's."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from wsi_minugan.errors import InputError, OutputError
from wsi_minugan.outputs.manifest import REVIEWS

LONGEST_NAME = 80
_UNSAFE = re.compile(r"[^\w.\- ]", re.UNICODE)
_LONGEST_STEM = 40


def clean_name(name: str) -> str:
    """Return a reviewer's name as it is written in files.

    Parameters
    ----------
    name : str
        What the user typed.

    Returns
    -------
    str
        Without spaces around it, in Unicode's form NFKC.

    Raises
    ------
    InputError
        If it is empty, too long, or not one line of text.

    Examples
    --------
    >>> clean_name("  Dr. Ada  ")
    'Dr. Ada'
    """
    cleaned = unicodedata.normalize("NFKC", name).strip()
    if not cleaned or len(cleaned) > LONGEST_NAME or not cleaned.isprintable():
        raise InputError(f"A reviewer's name is one line of 1 to {LONGEST_NAME} letters. Check --reviewer.")
    return cleaned


def folder_name(name: str) -> str:
    """Return the name of a reviewer's folder; two names never share one, but for upper and lower case.

    Parameters
    ----------
    name : str
        Any name that `clean_name` takes.

    Returns
    -------
    str
        Safe on every file system; a hash ends it where letters had to go.

    Raises
    ------
    InputError
        If `clean_name` does not take the name.
    """
    cleaned = clean_name(name).casefold()
    stem = _UNSAFE.sub("_", cleaned)[:_LONGEST_STEM].strip(". ").replace(" ", "-")
    if stem == cleaned and re.fullmatch(r"\w[\w.\-]*", stem):
        return stem
    # Part of the name was lost, so a digest of it keeps it apart from others.
    digest = hashlib.sha256(cleaned.encode()).hexdigest()[:8]
    return f"{stem.strip('-._') or 'reviewer'}-{digest}"


def review_folder(slide_folder: Path, name: str) -> Path:
    """Return a reviewer's folder of a slide, which need not be there yet.

    Parameters
    ----------
    slide_folder : Path
        ``OUT/SLIDE_ID``.
    name : str
        The reviewer.

    Returns
    -------
    Path
        Below the slide's folder.

    Raises
    ------
    OutputError
        If it would lie outside of the slide's folder.
    InputError
        If the name is none.
    """
    folder = slide_folder / REVIEWS / folder_name(name)
    if not folder.resolve().is_relative_to(slide_folder.resolve()):
        raise OutputError(f"{folder} leads out of the slide's folder. Remove that link.")
    return folder
