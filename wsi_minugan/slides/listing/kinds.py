"""What a file is that OpenSlide does not open: most often it is whole, and of another kind than its name or its reader expects."""

from __future__ import annotations

from pathlib import Path

import tifffile

from wsi_minugan.slides.checks.pages import DAMAGED

_CONVERT = (
    "Convert it to a tiled TIFF: vips tiffsave FILE slide.tif --tile --pyramid --compression jpeg --Q 90."
)
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BM": "a BMP picture",
    b"GIF8": "a GIF picture",
}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
    b"<": "a text (HTML or XML): perhaps a page that came in place of a download",
}
_TIFF = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")


def why_not_opened(path: Path) -> str | None:
    """Say what a file is that no reader here opens, and what to do with it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str or None
        Sentences for the user. None where the file is of no known kind, or damaged.
    """
    try:
        with path.open("rb") as f:
            head = f.read(16)
    except OSError:
        return None
    if not head:
        return "It has no bytes. Copy it again."
    if path.suffix.lower() == ".mrxs":  # a JPEG picture to look at; the slide lies in a folder of its name
        there = path.with_suffix("").is_dir()
        return None if there else f"Its folder '{path.stem}' is not beside it. Copy that, too."
    for kinds, advice in ((_PICTURES, _CONVERT), (_OTHERS, "Give the slide itself.")):
        what = next((words for magic, words in kinds.items() if head.startswith(magic)), None)
        if what:
            return f"It is {what}, and no slide. {advice}"
    return _of_tiff(path, head) if head.startswith(_TIFF) else None


def _of_tiff(path: Path, head: bytes) -> str | None:
    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
            if not ends or max(ends) > tif.filehandle.size:
                return None
            if not page.is_tiled:
                return f"It is a TIFF in strips, and OpenSlide opens tiled ones. {_CONVERT}"
            if head.startswith(b"MM\0*"):
                return f"It is a TIFF with its bytes in big-endian order, which OpenSlide does not open. {_CONVERT}"
            compression = getattr(page.compression, "name", str(page.compression))
            return f"It is a whole tiled TIFF (compression {compression}) that OpenSlide does not open. {_CONVERT}"
    except DAMAGED:
        return None
