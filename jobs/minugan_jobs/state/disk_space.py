"""How much room results take, estimated before they are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from wsi_minugan.errors import RETRY, OutputError
from wsi_minugan.outputs.atomic import not_written
from wsi_minugan.slides.files import signatures_of
from wsi_minugan.slides.guarded import StallGuard

BYTES_PER_MM2 = 8e6
"""Results take 4 MB for each mm2 of tissue (docs/performance.md), and as much again while a slide is computed."""

KEPT_FREE_BYTES = 500_000_000
"""What the run's own files and everybody else must still find."""


def check_space(folder: Path, tissue_mm2: float, freed_bytes: int = 0) -> None:
    """Refuse a slide whose results will not fit.

    Parameters
    ----------
    folder : Path
        Where they go; must exist.
    tissue_mm2 : float
        Area that is analysed.
    freed_bytes : int
        What earlier results take that these replace.

    Raises
    ------
    OutputError
        If there is too little room, or the folder is gone.
    """
    try:
        free = shutil.disk_usage(folder).free + freed_bytes
    except OSError as e:
        raise not_written(folder, e) from e
    needed = tissue_mm2 * BYTES_PER_MM2 + KEPT_FREE_BYTES
    if free < needed:
        raise OutputError(
            f"About {needed / 1e9:.1f} GB are needed in {folder} and {free / 1e9:.1f} GB are free. "
            f"Free some space, then retry the failed slides: {RETRY}"
        )


def space_warning(folder: Path, slides: Iterable[Path], guard: StallGuard) -> str | None:
    """Return a sentence where a batch will probably not fit, else None.

    The tissue of slides not yet opened is unknown; results are about as large as the files themselves, which hold 2 to 5 MB for a mm2.

    Parameters
    ----------
    folder : Path
        Where the results will lie.
    slides : iterable of Path
        The batch's slides, on local disks.
    guard : StallGuard
        Keeps a drive that does not answer from holding up the run.

    Returns
    -------
    str or None
        The sentence, or None where there is room.
    """
    # What is not there, or does not answer, fails as a slide.
    total = sum(size for _, size, _ in signatures_of(slides, guard).values())
    free = shutil.disk_usage(folder).free
    if total <= free:
        return None
    return (
        f"The slides have {total / 1e9:.0f} GB, their results will need about as much, and {folder} has {free / 1e9:.0f} GB free. "
        "The batch begins; slides that do not fit will fail. You can retry them later."
    )
