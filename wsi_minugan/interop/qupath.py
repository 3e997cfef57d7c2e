"""Nuclei as a GeoJSON for QuPath, which does not read Parquet."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_minugan.api.result import Result
from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.exports.files import write_nuclei_geojson
from wsi_minugan.outputs.exports.objects import open_slide_folder


def write_nuclei_for_qupath(result: Result, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a slide's nuclei as QuPath detections; they are streamed, not held in memory.

    The command `wsi-minugan export OUT --to qupath` writes the same nuclei, with the mitoses.

    Parameters
    ----------
    result : Result
        The results of one slide.
    path : str or path, optional
        ``.geojson.gz`` to write. By default ``OUT/qupath/SLIDE.nuclei.geojson.gz``, where the QuPath script looks for it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If there are no nuclei, or the file cannot be written.

    Examples
    --------
    >>> write_nuclei_for_qupath(Result.open("OUT/a"))  # doctest: +SKIP
    """
    folder = result.folder
    slide = open_slide_folder(folder)
    if not slide.nuclei.is_file():
        raise OutputError(
            f"{folder} holds no nuclei: it was run with --no-nuclei. Run the slide again with --nuclei."
        )
    default = folder.parent / "qupath" / f"{folder.name}.nuclei.geojson.gz"
    target = default if path is None else Path(path)
    write_nuclei_geojson(slide, target)
    return target
