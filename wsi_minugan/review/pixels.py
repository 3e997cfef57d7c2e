"""The slide that a result was made from, opened again."""

from __future__ import annotations

from pathlib import Path

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Frame
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.pipeline.plan import open_reader
from wsi_minugan.slides.files import fingerprint
from wsi_minugan.slides.reader import SlideReader


def frame_of(sealed: Manifest) -> Frame:
    """Return the analysis frame of a finished slide.

    Parameters
    ----------
    sealed : Manifest
        Of the slide's result.

    Returns
    -------
    Frame
        That of the run.
    """
    slide = sealed.slide
    return Frame(
        level0_width_px=slide.width_px,
        level0_height_px=slide.height_px,
        level0_mpp=slide.mpp,
        scale=sealed.analysis_mpp / slide.mpp,
        width_px=sealed.analysis_width_px,
        height_px=sealed.analysis_height_px,
    )


def open_pixels(sealed: Manifest, path: Path) -> SlideReader:
    """Open a finished slide as the run did.

    Parameters
    ----------
    sealed : Manifest
        Of its result.
    path : Path
        Where the slide lies now.

    Returns
    -------
    SlideReader
        The open slide.

    Raises
    ------
    SlideUnreadableError
        If it is not there, or cannot be opened.
    InputError
        If it is another slide.
    """
    if fingerprint(path) != sealed.slide.fingerprint:
        raise InputError(
            f"{path} is not the slide that {sealed.slide.slide_id} was made from, or it was changed since. Check --slide."
        )
    return open_reader(path, _settings(sealed))


def _settings(sealed: Manifest) -> RunSettings:
    """Return the settings of the run that matter for reading; those that later versions lack are passed over."""
    known = {k: sealed.settings[k] for k in ("reader", "tolerate_tiles") if k in sealed.settings}
    return RunSettings(**known)
