"""Damaged headers end in a sentence: no traceback, no hang, no slide without a word.

`MINUGAN_FUZZ_S=600` goes on for ten minutes each; what was found so stands below, or beside the part that it was found in.
"""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import FUZZ_S, examples, for_a_while
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import MinuganError, SlideUnreadableError
from wsi_minugan.pipeline.plan import open_reader, plan_slide
from wsi_minugan.slides.inputs import SlideInput, expand_inputs

pytestmark = pytest.mark.timeout(max(900, 2 * FUZZ_S))
FUZZ = examples(40)
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8)


class Whole(bytes):
    """A file's bytes, which a failing test does not print."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes"


def ends_in_a_plan_or_a_sentence(path: Path) -> None:
    """Open and plan a slide as a run does; any other error than those of the user fails the test."""
    chosen = RunSettings(stall_s=30)
    try:
        (slide,) = expand_inputs([str(path)])
        reader = open_reader(path, chosen)
        try:
            plan = plan_slide(SlideInput("s", slide.path, 0.25), reader, chosen, 0.25)
            assert plan.blocks
            reader.read_level(0, plan.blocks[0])
        finally:
            reader.close()
    except MinuganError as e:
        assert len(str(e)) > 20


def changed(data: bytes, places: list[tuple[float, int]], start: int, length: int) -> bytes:
    """Return a file with some of the bytes of its header changed."""
    out = bytearray(data)
    for where, value in places:
        out[start + int(where * (length - 1))] = value
    return bytes(out)


def header_of(path: Path) -> tuple[int, int]:
    """Return where the directories of a TIFF lie, with all that is not pixels."""
    with tifffile.TiffFile(path) as tif:
        pages = list(tif.pages)
        ends = max(
            int(o) + int(c) for p in pages for o, c in zip(p.dataoffsets, p.databytecounts, strict=True)
        )
        starts = min(int(p.offset) for p in pages)
    size = path.stat().st_size
    return (starts, size - starts) if starts > ends // 2 else (0, min(size, 2048))


@pytest.fixture(scope="module")
def small(odd) -> np.ndarray:
    return np.ascontiguousarray(odd.image[300:812, 300:812])


@pytest.fixture(scope="module", params=["tif", "svs"])
def slide_bytes(
    request, tmp_path_factory: pytest.TempPathFactory, small: np.ndarray
) -> tuple[str, bytes, int, int]:
    path = tmp_path_factory.mktemp("fuzz") / f"s.{request.param}"
    said = "Aperio Image Library v11\r\n512x512 [0,0 512x512] (256x256) JPEG/RGB Q=70|AppMag = 40|MPP = 0.25"
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256), "metadata": None}
        tif.write(small, description=said if request.param == "svs" else None, **options)
        tif.write(small[::4, ::4], subfiletype=1, **options)
    return (request.param, Whole(path.read_bytes()), *header_of(path))


@pytest.mark.slow
@for_a_while
@given(CHANGES)
@FUZZ
def test_a_tiff_with_a_damaged_header_ends_in_a_plan_or_a_sentence(slide_bytes, tmp_path, places) -> None:
    ending, data, start, length = slide_bytes
    path = tmp_path / f"s.{ending}"
    path.write_bytes(changed(data, places, start, length))
    ends_in_a_plan_or_a_sentence(path)


@pytest.fixture(scope="module")
def dicom_bytes(tmp_path_factory: pytest.TempPathFactory, odd) -> bytes:
    pytest.importorskip("pydicom")
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    path = odd.dicom(
        tmp_path_factory.mktemp("fuzz") / "s" / "a.dcm", streams, "1.2.840.10008.1.2.4.50", "YBR_FULL_422"
    )
    return Whole(path.read_bytes())


@for_a_while
@given(CHANGES, st.floats(0.001, 1))
@FUZZ
def test_a_dicom_file_with_a_damaged_header_ends_in_a_plan_or_a_sentence(
    dicom_bytes, tmp_path, places, part
) -> None:
    path = tmp_path / "a.dcm"
    whole = changed(dicom_bytes, places, 128, 1800)
    path.write_bytes(whole if part > 0.5 else whole[: int(2 * part * len(whole))])
    ends_in_a_plan_or_a_sentence(path)


WHOLE_HEAD = b"OB\0\0\xff\xff\xff\xff"
"""The kind of value and the length of the pixels, left open, as they stand before the table of frames."""


@pytest.mark.parametrize("head", [WHOLE_HEAD, b"\0B\0\0\xff\xff\xff\xff", b"OB\0\0\x80\xff\xff\xff"])
@pytest.mark.parametrize("offset", [2**24, 2**31, 2**32 - 1, 12])
def test_a_dicom_table_of_frames_that_points_elsewhere_is_refused_and_does_not_crash(
    dicom_bytes, tmp_path, offset, head
) -> None:
    # Found by fuzzing: OpenSlide read there, whatever stood before the table, and the process was gone.
    pixels = dicom_bytes.index(WHOLE_HEAD)
    entry = pixels + 16 + 4 * 12
    data = dicom_bytes[:pixels] + head + dicom_bytes[pixels + 8 : entry] + offset.to_bytes(4, "little")
    (tmp_path / "a.dcm").write_bytes(data + dicom_bytes[entry + 4 :])
    with pytest.raises(SlideUnreadableError, match="table of frames"):
        open_reader(tmp_path / "a.dcm", RunSettings(stall_s=30))
