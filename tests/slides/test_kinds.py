"""A file that is whole and of another kind is told as what it is, not as cut off."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.slides.opening import open_slide

PIXELS = np.full((300, 400, 3), 200, np.uint8)
CUT_OFF = "may be truncated"


def test_a_folder_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(SlideUnreadableError, match="It is a folder and no slide: name a slide in it"):
        open_slide(tmp_path)


def write_tiff(path: Path, **how: object) -> None:
    tifffile.imwrite(path, PIXELS, photometric="rgb", metadata=None, **how)


def write_picture(path: Path, ending: str) -> None:
    path.write_bytes(cv2.imencode(ending, PIXELS)[1].tobytes())


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a TIFF in strips": ("a.tif", write_tiff),
    "big-endian order": (
        "a.svs",
        lambda p: write_tiff(p, tile=(256, 256), byteorder=">", compression="deflate"),
    ),
    "a PNG picture": ("a.tiff", lambda p: write_picture(p, ".png")),
    "a JPEG picture": ("a.svs", lambda p: write_picture(p, ".jpg")),
    "a BMP picture": ("a.tif", lambda p: write_picture(p, ".bmp")),
    "a PDF document": ("a.svs", lambda p: p.write_bytes(b"%PDF-1.7\n")),
    "a ZIP archive": ("a.svs", lambda p: p.write_bytes(b"PK\x03\x04 and more")),
    "perhaps a page that came in place of a download": ("a.svs", lambda p: p.write_bytes(b"<!DOCTYPE html>")),
    "no bytes": ("a.svs", lambda p: p.write_bytes(b"")),
    "Its folder 'a' is not beside it": ("a.mrxs", lambda p: write_picture(p, ".jpg")),
}


@pytest.mark.parametrize("words", list(KINDS))
def test_a_whole_file_of_another_kind_is_told_as_what_it_is(tmp_path: Path, words: str) -> None:
    name, write = KINDS[words]
    write(tmp_path / name)
    with pytest.raises(SlideUnreadableError) as caught:
        open_slide(tmp_path / name)
    assert words in str(caught.value)
    assert CUT_OFF not in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_told_as_that(tmp_path: Path, kept: float) -> None:
    write_tiff(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(SlideUnreadableError, match=CUT_OFF):
        open_slide(tmp_path / "a.tif")
