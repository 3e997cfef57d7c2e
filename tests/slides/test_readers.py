"""Readers: the direct one gives OpenSlide's pixels; regions do not depend on how they are cut; bad files say why."""

from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_minugan.errors import (
    MppError,
    NotBrightfieldError,
    SlideError,
    SlideUnreadableError,
    TileUnreadableError,
)
from wsi_minugan.geometry import Box, analysis_frame
from wsi_minugan.slides.analysis import AnalysisView, reduced
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.openslide_reader import OpenSlideReader
from wsi_minugan.slides.reader import SlideInfo, resolve_mpp
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide
from wsi_minugan.slides.tiff_reader import TiffReader
from wsi_minugan.slides.tissue import TissueMask, find_tissue, is_dark_field, tissue_of


def test_the_direct_reader_gives_the_pixels_of_openslide(slide: Path) -> None:
    direct, plain = open_slide(slide), OpenSlideReader(slide)
    assert isinstance(direct, TiffReader)
    for level in range(len(plain.info.levels)):
        for box in (
            Box(-30, -20, 300, 400),
            Box(200, 250, 256, 256),
            Box(1200, 1400, 300, 300),
            Box(5000, 0, 9, 9),
        ):
            assert np.array_equal(direct.read_level(level, box), plain.read_level(level, box))


@pytest.mark.shared
def test_the_direct_reader_gives_the_pixels_of_openslide_on_an_svs(shared: Path) -> None:
    path = shared / "data" / "slides" / "CMU-1-Small-Region.svs"
    direct, plain = open_slide(path), OpenSlideReader(path)
    assert isinstance(direct, TiffReader)
    for y in range(0, plain.info.height_px, 700):
        for x in range(0, plain.info.width_px, 700):
            box = Box(y, x, 700, 700)
            assert np.array_equal(direct.read_level(0, box), plain.read_level(0, box))


@pytest.mark.slow
@given(
    st.integers(0, 600),
    st.integers(0, 600),
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([0.21, 0.35, 0.5]),
)
@settings(max_examples=25, deadline=None)
def test_a_resampled_pixel_does_not_depend_on_its_region(y: int, x: int, h: int, w: int, mpp: float) -> None:
    drawing = SyntheticSlide(900, 800, seed=5)

    class Drawn:
        info = None

        def read_level(self, level: int, box: Box) -> np.ndarray:
            return drawing.draw(box)

    frame = analysis_frame(900, 800, mpp, 0.25)
    view = AnalysisView(Drawn(), frame)
    large = Box(max(0, y - 40), max(0, x - 40), h + 80, w + 80)
    box = Box(y, x, h, w)
    assert np.array_equal(view.read(large)[box.slices_within(large)], view.read(box))


def test_drawings_are_the_same_however_they_are_cut() -> None:
    drawing = SyntheticSlide(900, 800, seed=5)
    whole, classes = drawing.draw_with_classes(Box(100, 100, 500, 500))
    box = Box(260, 330, 120, 90)
    part, part_classes = drawing.draw_with_classes(box)
    at = box.slices_within(Box(100, 100, 500, 500))
    assert np.array_equal(whole[at], part)
    assert np.array_equal(classes[at], part_classes)


def test_tissue_is_found_and_glass_is_not(slide: Path, drawing: SyntheticSlide) -> None:
    reader = open_slide(slide)
    frame = analysis_frame(drawing.width_px, drawing.height_px, 0.25, 0.25)
    tissue = find_tissue(reader, frame)
    for x, y in drawing.mitoses_xy_px:
        assert tissue.any_in(Box(int(y), int(x), 1, 1))
    assert not tissue.any_in(Box(0, 0, 32, 32))
    share = tissue.area_mm2(0.25) / (drawing.width_px * drawing.height_px * 0.25**2 / 1e6)
    assert 0.5 < share < 0.8


def test_the_margin_around_tissue_is_analysed_but_not_counted_as_tissue() -> None:
    picture = np.full((100, 100, 3), 240, np.uint8)
    picture[30:70, 30:70] = (220, 120, 180)
    stained = tissue_of(picture)
    mask = TissueMask(np.ones_like(stained), 32, 3200, 3200, stained)
    assert mask.area_mm2(0.25) == pytest.approx((40 * 8e-3) ** 2, rel=0.15)
    left_out = np.zeros_like(stained)
    left_out[:50] = True
    assert mask.without(left_out).area_mm2(0.25) == pytest.approx(mask.area_mm2(0.25) / 2, rel=0.02)


def info(x: float | None, y: float | None) -> SlideInfo:
    return SlideInfo(Path("a.svs"), 10, 10, (), x, y, "vendor property", "aperio", 40.0)


def test_the_users_resolution_wins() -> None:
    assert resolve_mpp(info(0.5, 0.5), 0.25) == (0.25, "given by the user")


@pytest.mark.parametrize("value", [0.0, -1.0, 7.0, float("nan"), float("inf")])
def test_an_implausible_resolution_is_told_with_the_place_where_it_was_given(value: float) -> None:
    with pytest.raises(MppError, match="Check the column mpp of the CSV of slides"):
        resolve_mpp(info(0.5, 0.5), value, 0.25)
    with pytest.raises(MppError, match="Check --mpp"):
        resolve_mpp(info(None, None), None, value)


def test_the_resolution_for_all_slides_is_only_for_those_that_say_nothing_plausible() -> None:
    assert resolve_mpp(info(0.5, 0.5), None, 0.25) == (0.5, "vendor property")
    for silent in (info(None, None), info(12.0, 12.0), info(0.25, 0.30)):
        assert resolve_mpp(silent, None, 0.25) == (0.25, "given by the user")
    with pytest.raises(MppError, match="--mpp"):
        resolve_mpp(info(None, None), None, 3.0)


@pytest.mark.parametrize(("x", "y"), [(None, None), (0.0001, 0.0001), (12.0, 12.0), (0.25, 0.30)])
def test_no_plausible_resolution_is_an_error_that_names_the_option(x: float | None, y: float | None) -> None:
    with pytest.raises(MppError, match="--mpp"):
        resolve_mpp(info(x, y), None)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SlideUnreadableError, match="no file"):
        open_slide(tmp_path / "gone.svs")


def test_what_is_not_an_image_says_so(tmp_path: Path) -> None:
    path = tmp_path / "text.svs"
    path.write_text("not an image " * 100)
    with pytest.raises(SlideUnreadableError, match="cannot be opened"):
        open_slide(path)


@pytest.mark.parametrize("name", ["s.jp2", "S.JP2"])
def test_what_only_tiatoolbox_opens_is_told_how_to_open(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pixels = np.full((64, 64, 3), 200, np.uint8)
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="JP2", reversible=True))
    with pytest.raises(SlideUnreadableError, match=r"--reader tiatoolbox .*wsi-minugan\[tiatoolbox\]"):
        open_slide(path)


def test_other_files_are_not_told_of_tiatoolbox(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("not an image")
    with pytest.raises(SlideUnreadableError) as told:
        open_slide(tmp_path / "text.svs")
    assert "tiatoolbox" not in str(told.value)


def test_a_truncated_slide_says_so(tmp_path: Path, slide: Path) -> None:
    path = tmp_path / "short.tiff"
    path.write_bytes(slide.read_bytes()[:5000])
    with pytest.raises((SlideUnreadableError, TileUnreadableError)):
        reader = open_slide(path)
        reader.read_level(0, Box(0, 0, 1300, 1500))


@pytest.mark.parametrize(
    ("part", "words"), [(1.0, "--reader tiatoolbox finds it"), (0.9, "cut off"), (0.5, "truncated")]
)
def test_an_ome_tiff_that_is_cut_off_says_so_and_a_whole_one_how_to_learn_its_resolution(
    tmp_path: Path, part: float, words: str
) -> None:
    path, pixels = (
        tmp_path / "s.ome.tiff",
        SyntheticSlide(600, 500, seed=1, mitoses=1).draw(Box(0, 0, 500, 600)),
    )
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256)}
        writer.write(pixels, subifds=1, metadata={"axes": "YXS", "PhysicalSizeX": 0.25}, **options)
        writer.write(pixels[::2, ::2], subfiletype=1, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(SlideError, match=words) as told:
        resolve_mpp(open_slide(path).info, None)
    assert part == 1.0 or "tiatoolbox" not in str(told.value)


@pytest.mark.parametrize("kind", ["16 bit", "grey"])
def test_fluorescence_and_grey_images_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "deep.tiff"
    pixels = np.zeros((512, 512, 3), np.uint16) if kind == "16 bit" else np.zeros((512, 512), np.uint8)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb" if kind == "16 bit" else "minisblack")
    with pytest.raises(NotBrightfieldError, match="brightfield"):
        open_slide(path)


def fluorescence(height: int, width: int) -> np.ndarray:
    """Blue nuclei and green specks on black."""
    image = np.zeros((height, width, 3), np.uint8)
    rng = np.random.default_rng(2)
    for colour, count, radius in (((0, 0, 200), 400, 14), ((0, 180, 0), 200, 5)):
        for x, y in rng.integers(0, (width, height), (count, 2)).tolist():
            cv2.circle(image, (x, y), radius, colour, -1)
    return image


@pytest.mark.parametrize("kind", ["fluorescence", "all black"])
def test_a_dark_field_of_8_bits_is_refused(tmp_path: Path, kind: str) -> None:
    pixels = fluorescence(1500, 1300) if kind == "fluorescence" else np.zeros((1500, 1300, 3), np.uint8)
    tifffile.imwrite(tmp_path / "dark.tiff", pixels, tile=(256, 256), photometric="rgb")
    with pytest.raises(NotBrightfieldError, match="brightfield"):
        find_tissue(open_slide(tmp_path / "dark.tiff"), analysis_frame(1300, 1500, 0.25, 0.25))


def test_black_borders_around_a_scan_are_no_dark_field(slide: Path, drawing: SyntheticSlide) -> None:
    frame = analysis_frame(drawing.width_px, drawing.height_px, 0.25, 0.25)
    picture = reduced(open_slide(slide), 32, -(-frame.width_px // 32), -(-frame.height_px // 32))
    assert not is_dark_field(picture)
    assert not is_dark_field(np.pad(picture, ((60, 60), (60, 60), (0, 0))))


def test_a_tile_that_does_not_decode_is_named(tmp_path: Path, slide: Path) -> None:
    path = tmp_path / "bad tile.tiff"
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tif:
        page = tif.pages[0]
        index = 9
        start, size = page.dataoffsets[index], page.databytecounts[index]
    data[start : start + size] = b"\x00" * size
    path.write_bytes(bytes(data))
    with pytest.raises(TileUnreadableError, match="does not decode"):
        open_slide(path).read_level(0, Box(0, 0, 1300, 1500))


def test_a_read_that_hangs_is_given_up(tmp_path: Path) -> None:
    import threading

    from wsi_minugan.slides.guarded import GuardedReader

    release, closed = threading.Event(), threading.Event()

    class Hanging:
        info = info(0.25, 0.25)

        def read_level(self, level: int, box: Box) -> np.ndarray:
            release.wait(20)
            return np.zeros((1, 1, 3), np.uint8)

        def close(self) -> None:
            closed.set()

    reader = GuardedReader(Hanging(), 0.2)
    with pytest.raises(SlideUnreadableError, match="did not answer"):
        reader.read_level(0, Box(0, 0, 1, 1))
    # What is closed under a read that still hangs crashes the process: the read closes it when it comes back.
    reader.close()
    assert not closed.is_set()
    release.set()
    assert closed.wait(10)


def test_opening_a_file_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    import os

    from wsi_minugan.config import RunSettings
    from wsi_minugan.pipeline.plan import open_reader

    path = tmp_path / "stalled.svs"
    os.mkfifo(path)  # opening it waits for a writer that never comes
    with pytest.raises(SlideUnreadableError, match="did not answer"):
        open_reader(path, RunSettings(stall_s=0.2))
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.slow
def test_a_drawn_slides_pyramid_shows_the_same_at_every_level(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tiff"
    drawing = SyntheticSlide(2400, 2200, seed=5)
    write_slide(path, drawing)
    reader = open_slide(path)
    assert len(reader.info.levels) == 2
    small = reader.read_level(1, Box(0, 0, 275, 300)).astype(int)
    full = reader.read_level(0, Box(0, 0, 2200, 2400)).astype(float)
    reduced = full.reshape(275, 8, 300, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - reduced).mean() < 4


def with_tag(slide: Path, folder: Path, tag: str, value: int) -> Path:
    path = folder / "damaged.tiff"
    path.write_bytes(slide.read_bytes())
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags[tag].overwrite(value)
    return path


def test_a_header_with_tiles_of_gigabytes_is_refused_before_anything_is_read(
    tmp_path: Path, slide: Path
) -> None:
    with pytest.raises(SlideUnreadableError, match="damaged"):
        open_slide(with_tag(slide, tmp_path, "TileLength", 15_532_288))


def test_a_header_with_more_tiles_than_there_are_is_refused(tmp_path: Path, slide: Path) -> None:
    # Found by fuzzing: tiles were taken for others, and reading the rest took minutes and gigabytes.
    for tag, value in (("ImageLength", 63_100), ("ImageWidth", 2**24 + 1500)):
        with pytest.raises(SlideUnreadableError, match=r"is damaged: .* take \d+ tiles, and holds \d+"):
            open_slide(with_tag(slide, tmp_path, tag, value))
