"""Results in other programs' formats."""

from __future__ import annotations

from pathlib import Path

import click

from wsi_minugan.errors import InputError, OutputError

EXPORT = "export"


def export(out: Path, kind: str, folder: Path | None) -> None:
    """Write one file for each finished slide of a run, or for one slide, and say where it lies.

    Parameters
    ----------
    out : Path
        Output folder of a run, or the folder of one slide.
    kind : str
        A key of `wsi_minugan.outputs.exports.files.FORMATS`, such as "qupath".
    folder : Path, optional
        Where to write. The default is the folder ``export`` in the run's output folder.
    """
    from wsi_minugan.outputs.exports.files import FORMATS
    from wsi_minugan.outputs.exports.objects import open_slide_folder

    ending, write, counts = FORMATS[kind]
    folders = _slide_folders(out)
    place = folder or (out if out not in folders else out.parent) / EXPORT
    for slide_folder in folders:
        # The folder's name, not what the manifest says: it is a name that lies in OUT.
        path = place / f"{slide_folder.name}{ending}"
        count = write(open_slide_folder(slide_folder), path)
        click.echo(f"{path}  {count} {counts}")


def _slide_folders(out: Path) -> list[Path]:
    """Return the folders of finished slides: the folder itself, or those in it."""
    if not out.is_dir():
        raise InputError(
            f"There is no folder {out}. Name the output folder of a run, or the folder of a slide in it."
        )
    if (out / "manifest.json").is_file():
        return [out]
    try:
        found = sorted(p.parent for p in out.glob("*/manifest.json"))
    except OSError as e:
        raise OutputError(f"{out} cannot be read: {e.strerror or e}. Check who may read the folder.") from e
    if not found:
        raise OutputError(f"{out} holds no finished slides. Run them first.")
    return found
