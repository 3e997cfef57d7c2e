"""Pixels are what the file means, or the slide fails with a sentence; never other numbers without a word."""

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import (
    MppError,
    SlideError,
    TileUnreadableError,
    WhichPictureError,
    WrongColoursError,
)
from wsi_minugan.geometry import Box
from wsi_minugan.pipeline.plan import SlidePlan, open_reader, plan_slide
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.checks import streams
from wsi_minugan.slides.checks.blanks import WatchedView
from wsi_minugan.slides.checks.codestream import j2k_hole
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.reader import resolve_mpp
from wsi_minugan.slides.tissue import tissue_of

JPEG, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91"


def plan_of(path, mpp=None, **settings) -> SlidePlan:
    chosen = RunSettings(**settings)
    reader = open_reader(path, chosen)
    try:
        return plan_slide(SlideInput("s", path, mpp), reader, chosen, 0.25)
    finally:
        reader.close()


def read_all(path, **settings) -> None:
    """Read all of a slide as its analysis does."""
    plan = plan_of(path, **settings)
    reader = open_reader(path, RunSettings(**settings))
    WatchedView(AnalysisView(reader, plan.frame), plan.tissue, path).read(plan.frame.box)


@pytest.fixture(scope="module")
def plain_mm2(tmp_path_factory, odd) -> float:
    return plan_of(odd.pages(tmp_path_factory.mktemp("plain") / "plain.tif", odd.image)).tissue_mm2


# Colours


@pytest.mark.parametrize(
    ("frames", "syntax", "colours"),
    [
        ("YCbCr", JPEG, "RGB"),
        ("RGB", JPEG, "YBR_FULL_422"),
        ("raw YCbCr", J2K, "YBR_ICT"),
        ("raw YCbCr", J2K, "YBR_RCT"),
    ],
)
def test_dicom_whose_header_and_frames_contradict_each_other_is_refused_with_the_cause(
    tmp_path, odd, ycc, frames, syntax, colours
):
    pytest.importorskip("pydicom")
    if syntax == JPEG:
        streams = [odd.jpeg(t, ycc=frames == "YCbCr") for t in odd.tiles(odd.image)]
    else:
        options = {"level": 0, "codecformat": "j2k", "mct": False, "reversible": True}
        streams = [bytes(imagecodecs.jpeg2k_encode(t, **options)) for t in odd.tiles(ycc(odd.image))]
    with pytest.raises(WrongColoursError, match=f"its header says {colours}, its frames have"):
        open_slide(odd.dicom(tmp_path / "s" / "a.dcm", streams, syntax, colours))


@pytest.mark.parametrize(
    ("kind", "syntax", "colours"),
    [("raw YCbCr", J2K, "RGB"), ("unmarked YCbCr", JPEG, "RGB"), ("BGR", JPEG, "YBR_FULL_422")],
)
def test_dicom_of_other_colours_that_says_nothing_of_them_is_refused_by_its_tissue(
    tmp_path, odd, ycc, kind, syntax, colours
):
    pytest.importorskip("pydicom")
    image = ycc(odd.image) if kind == "raw YCbCr" else odd.image[..., ::-1] if kind == "BGR" else odd.image
    if syntax == J2K:
        options = {"level": 0, "codecformat": "j2k", "mct": False, "reversible": True}
        streams = [bytes(imagecodecs.jpeg2k_encode(t, **options)) for t in odd.tiles(image)]
    else:
        streams = [odd.jpeg(t, marked=kind == "BGR") for t in odd.tiles(image)]
    with pytest.raises(WrongColoursError, match="colours that H&E cannot have"):
        plan_of(odd.dicom(tmp_path / "s" / "a.dcm", streams, syntax, colours))


@pytest.mark.parametrize(("ycc_stream", "photometric"), [(True, "rgb"), (False, "ycbcr")])
@pytest.mark.parametrize("marked", [True, False])
def test_a_tiff_whose_jpeg_holds_other_colours_than_its_tag_says_is_refused(
    tmp_path, odd, ycc_stream, photometric, marked
):
    tiles = [odd.jpeg(t, ycc=ycc_stream, marked=marked) for t in odd.tiles(odd.image)]
    with pytest.raises(WrongColoursError, match=r"contradicts itself|cannot have"):
        plan_of(odd.stored(tmp_path / "s.tif", tiles, photometric=photometric))


@pytest.mark.parametrize(("ycc_stream", "photometric"), [(False, "rgb"), (True, "ycbcr")])
@pytest.mark.parametrize("marked", [True, False])
def test_a_tiff_whose_jpeg_holds_what_its_tag_says_is_read(
    tmp_path, odd, plain_mm2, ycc_stream, photometric, marked
):
    tiles = [odd.jpeg(t, ycc=ycc_stream, marked=marked) for t in odd.tiles(odd.image)]
    path = odd.stored(tmp_path / "s.tif", tiles, photometric=photometric)
    assert plan_of(path).tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)
    found = open_slide(path).read_level(0, Box(300, 300, 256, 256)).astype(int)
    assert np.abs(found - odd.image[300:556, 300:556]).mean() < 3


ORDERS = {"BGR": (2, 1, 0), "RBG": (0, 2, 1), "GBR": (1, 2, 0), "BRG": (2, 0, 1), "GRB": (1, 0, 2)}


@pytest.mark.parametrize(
    "kind", [*ORDERS, "YCbCr", "YCrCb", "CIELab", "signed CIELab", "RGB taken for YCbCr"]
)
def test_tissue_of_colours_that_no_stain_has_is_refused(tmp_path, odd, ycc, kind):
    image = odd.image
    if kind in ORDERS:
        image = image[..., ORDERS[kind]]
    elif kind in {"YCbCr", "YCrCb"}:
        image = ycc(image)[..., (0, 1, 2) if kind == "YCbCr" else (0, 2, 1)]
    elif kind == "RGB taken for YCbCr":
        image = cv2.cvtColor(np.ascontiguousarray(image[..., (0, 2, 1)]), cv2.COLOR_YCrCb2RGB)
    else:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        image = image if kind == "CIELab" else image - np.array((0, 128, 128), np.uint8)
    with pytest.raises(SlideError, match=r"cannot have|is dark"):
        plan_of(odd.pages(tmp_path / "s.tif", np.ascontiguousarray(image)))


@pytest.mark.parametrize("photometric", [1, 8, 9])
def test_three_channels_that_are_neither_rgb_nor_ycbcr_are_refused_by_their_tag(tmp_path, odd, photometric):
    path = odd.pages(tmp_path / "s.tif", odd.image)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["PhotometricInterpretation"].overwrite(photometric)
    with pytest.raises(WrongColoursError, match=r"says that its colours are (MINISBLACK|CIELAB|ICCLAB)"):
        open_slide(path)


# Streams


@pytest.mark.parametrize("kind", ["cut", "no end marker", "hole and no end", "hole", "zeros at the start"])
@pytest.mark.parametrize("tolerate", [0, 1])
def test_a_jpeg_tile_that_decodes_only_with_a_warning_does_not_decode(tmp_path, odd, kind, tolerate):
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    whole = streams[12]
    half, n = len(whole) // 2, len(whole)
    streams[12] = {
        "cut": whole[: n // 5],
        "no end marker": whole[:-2],
        "hole and no end": whole[:half] + bytes(n - half),
        "hole": whole[:half] + bytes(n // 4) + whole[half + n // 4 :],
        "zeros at the start": bytes(16) + whole[16:],
    }[kind]
    path = odd.stored(tmp_path / "s.tif", streams)
    if tolerate:
        plan = plan_of(path, tolerate_tiles=1)
        assert plan.broken_tiles == 1
        assert any("1 tile does not decode" in w for w in plan.warnings)
    else:
        with pytest.raises(TileUnreadableError, match=r"tile \(row 2, column 2\)"):
            read_all(path)


@pytest.mark.parametrize("compression", ["deflate", "lzw", None])
@pytest.mark.parametrize("with_levels", [True, False])
def test_a_hole_in_a_tile_without_jpeg_is_told(tmp_path, odd, compression, with_levels):
    levels = odd.levels[1::2] if with_levels else []
    path = odd.pages(tmp_path / "s.tif", odd.image, *levels, compression=compression)
    odd.with_tile_bytes(path, {12: lambda b: b[: len(b) // 8] + bytes(len(b) - len(b) // 8)})
    with pytest.raises(TileUnreadableError, match=r"does not decode|has one value|holds no data"):
        read_all(path)


@pytest.mark.parametrize("value", [0, 255])
def test_a_raw_tile_of_one_value_inside_tissue_is_left_out_where_that_is_allowed(
    tmp_path, odd, plain_mm2, value
):
    path = odd.pages(tmp_path / "s.tif", odd.image, *odd.levels[1::2], compression=None)
    odd.with_tile_bytes(path, {12: lambda b: bytes([value]) * len(b)})
    with pytest.raises(TileUnreadableError, match=r"one value|holds no data"):
        read_all(path)
    plan = plan_of(path, tolerate_tiles=1)
    assert plan.broken_tiles == 1
    assert plan.tissue_mm2 == pytest.approx(plain_mm2 - (256 * 0.25e-3) ** 2, rel=0.03)


def test_a_tile_that_openslide_refuses_is_not_called_the_same(tmp_path, odd):
    # All largest tiles are cut: nothing could be compared, and nothing is read that OpenSlide would refuse.
    streams = [odd.jpeg(t)[:-2] for t in odd.tiles(odd.image)]
    with pytest.raises(TileUnreadableError, match="does not decode"):
        read_all(odd.stored(tmp_path / "s.tif", streams))


def test_what_follows_the_end_marker_of_a_tile_is_ignored(tmp_path, odd):
    streams = [odd.jpeg(t) + b"padding" * k for k, t in enumerate(odd.tiles(odd.image))]
    read_all(odd.stored(tmp_path / "s.tif", streams))


@pytest.mark.parametrize("kind", ["cut", "hole"])
@pytest.mark.parametrize("syntax", [JPEG, J2K])
def test_frames_of_dicom_that_are_cut_or_holed_are_told(tmp_path, odd, kind, syntax):
    pytest.importorskip("pydicom")
    tiles = odd.tiles(odd.image)
    if syntax == JPEG:
        streams = [odd.jpeg(t) for t in tiles]
    else:
        options = {"level": 0, "codecformat": "j2k", "mct": True, "reversible": True}
        streams = [bytes(imagecodecs.jpeg2k_encode(t, **options)) for t in tiles]
    whole, half = streams[12], len(streams[12]) // 2
    streams[12] = whole[:half] if kind == "cut" else whole[:half] + bytes(800) + whole[half + 800 :]
    colours = "YBR_FULL_422" if syntax == JPEG else "YBR_RCT"
    path = odd.dicom(tmp_path / "s" / "a.dcm", streams, syntax, colours)
    with pytest.raises(
        TileUnreadableError, match=r"tile 12 of level 0.*(end marker|hole|cut off)|does not decode"
    ):
        read_all(path)


@pytest.mark.parametrize("kind", [JPEG, J2K, "tiff"])
def test_a_hole_is_found_where_openslide_decodes_however_many_tiles_there_are(
    tmp_path, odd, kind, monkeypatch
):
    # A plan looks at a sample of them only: here at the first.
    monkeypatch.setattr(streams, "_SAMPLE", 1)
    options = {"level": 0, "codecformat": "j2k", "mct": True, "reversible": True}
    tiles = odd.tiles(odd.image)
    frames = [odd.jpeg(t) if kind != J2K else bytes(imagecodecs.jpeg2k_encode(t, **options)) for t in tiles]
    half, n = len(frames[12]) // 2, len(frames[12])
    frames[12] = frames[12][:half] + bytes(n // 4) + frames[12][half + n // 4 :]
    if kind == "tiff":
        path = odd.stored(tmp_path / "s.tif", frames)
    else:
        path = odd.dicom(
            tmp_path / "s" / "a.dcm", frames, kind, "YBR_FULL_422" if kind == JPEG else "YBR_RCT"
        )
    with pytest.raises(TileUnreadableError, match=r"tile \(row 2, column 2\).*hole of zeros"):
        read_all(path, reader="openslide")
    assert plan_of(path, reader="openslide", tolerate_tiles=1).broken_tiles == 1


def test_flat_glass_of_many_empty_packets_is_no_hole():
    # Twelve layers, six resolutions, three components: each packet of a white tile is one byte of zeros.
    cod = bytes((0xFF, 0x52, 0, 12, 0, 0, 0, 12, 1, 5, 4, 4, 0, 1))
    head = b"\xff\x4f\xff\x51\0\x02" + cod + b"\xff\x90"
    assert not j2k_hole(head + b"\x80" + bytes(12 * 6 * 3) + b"\xff\xd9")
    assert j2k_hole(head + b"\x80" + bytes(12 * 6 * 3 + 40) + b"\xff\xd9")


@pytest.mark.parametrize("compression", ["deflate", "lzw", None])
@pytest.mark.parametrize("predictor", [True, False])
def test_tiles_without_jpeg_are_read_as_openslide_reads_them(tmp_path, odd, compression, predictor):
    from wsi_minugan.slides.tiff_reader import TiffReader

    options = {"predictor": predictor} if compression else {}
    reader = open_slide(odd.pages(tmp_path / "s.tif", odd.image, compression=compression, **options))
    assert isinstance(reader, TiffReader)
    assert np.array_equal(reader.read_level(0, Box(0, 0, 1152, 1200)), odd.image)


# Lower levels


def test_levels_padded_to_whole_tiles_are_to_scale(tmp_path, odd, plain_mm2):
    path = odd.pages(tmp_path / "s.tif", odd.image, *map(odd.padded, odd.levels))
    plan = plan_of(path)
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)
    assert [lv.downsample for lv in plan.info.levels] == [1, 2, 4, 8, 16]


def shifted(level: np.ndarray) -> np.ndarray:
    return np.roll(level, level.shape[1] // 3, axis=1)


def half_blank(level: np.ndarray) -> np.ndarray:
    level = level.copy()
    level[:, level.shape[1] // 3 :] = 243
    return level


def of_another_shape(level: np.ndarray) -> np.ndarray:
    return cv2.resize(level, (level.shape[1], level.shape[0] * 4 // 5), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("spoil", [shifted, half_blank, of_another_shape])
def test_a_level_that_does_not_show_what_level_0_shows_is_not_used_and_that_is_told(
    tmp_path, odd, plain_mm2, spoil
):
    levels = odd.levels
    plan = plan_of(odd.pages(tmp_path / "s.tif", odd.image, levels[1], spoil(levels[3])))
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)
    assert not plan.info.levels[2].usable
    assert any("Level 2" in w for w in plan.warnings)


def test_a_small_blank_part_of_a_level_is_found_by_the_bytes_of_level_0(tmp_path, odd, plain_mm2):
    levels = odd.levels
    spoilt = levels[3].copy()
    spoilt[32:48, 32:48] = 243
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    plan = plan_of(odd.stored(tmp_path / "s.tif", streams, [spoilt]))
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.03)


@pytest.mark.parametrize("how", [cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LINEAR])
def test_levels_are_used_however_they_were_reduced(tmp_path, odd, how):
    small = cv2.resize(odd.image, (odd.image.shape[1] // 16, odd.image.shape[0] // 16), interpolation=how)
    plan = plan_of(odd.pages(tmp_path / "s.tif", odd.image, small))
    assert plan.info.levels[1].usable
    assert not any("Level" in w for w in plan.warnings)


# Tiles that are left out


@pytest.mark.parametrize("tolerate", [0, 3])
def test_broken_tiles_of_a_lower_level_lose_no_tissue(tmp_path, odd, plain_mm2, tolerate):
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    coarse = [odd.jpeg(t)[:200] for t in odd.tiles(odd.levels[2])]
    path = tmp_path / "s.tif"
    odd.stored(path, streams)
    with tifffile.TiffWriter(path, append=True) as tif:
        options = {"tile": (256, 256), "compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1)}
        tif.write(
            iter(coarse), shape=odd.levels[2].shape, dtype=np.uint8, subfiletype=1, metadata=None, **options
        )
    plan = plan_of(path, tolerate_tiles=tolerate)
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)
    assert any("Level 1 of the slide has tiles that do not decode" in w for w in plan.warnings)


def test_broken_tiles_in_which_tissue_cannot_be_seen_count(tmp_path, odd):
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    for k in (6, 7, 8, 11, 12, 13, 16, 17, 18):
        streams[k] = streams[k][:100]
    path = odd.stored(tmp_path / "s.tif", streams)
    with pytest.raises(TileUnreadableError, match="9 tiles with tissue do not decode"):
        plan_of(path, tolerate_tiles=8)
    assert plan_of(path, tolerate_tiles=9).broken_tiles == 9


@pytest.mark.parametrize("tile", [12, 7])
def test_tiles_of_no_bytes_under_whole_lower_levels_are_broken_tiles(tmp_path, odd, plain_mm2, tile):
    streams = [b"" if k == tile else odd.jpeg(t) for k, t in enumerate(odd.tiles(odd.image))]
    path = odd.stored(tmp_path / "s.tif", streams, odd.levels[1::2])
    with pytest.raises(
        TileUnreadableError, match=r"level 0 holds no data in 1 tile with tissue.*--tolerate-tiles 1"
    ):
        plan_of(path)
    plan = plan_of(path, tolerate_tiles=1)
    assert plan.broken_tiles == 1
    assert plan.tissue_mm2 < plain_mm2 - 0.8 * (256 * 0.25e-3) ** 2


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_tiles_of_no_bytes_of_an_svs_are_not_filled_from_a_lower_level(tmp_path, odd, reader):
    # OpenSlide does so, and what it shows looks whole.
    streams = [b"" if k == 12 else odd.jpeg(t) for k, t in enumerate(odd.tiles(odd.image))]
    said = SAID.format(w=1152, h=1200, mpp=0.25, mag=40)
    path = tmp_path / "s.svs"
    options = {"tile": (256, 256), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        first = {"shape": odd.image.shape, "dtype": np.uint8, "photometric": "ycbcr", "subsampling": (1, 1)}
        tif.write(iter(streams), description=said, **first | options)
        tif.write(odd.levels[1], photometric="rgb", description=said, **options)
    with pytest.raises(TileUnreadableError, match="level 0 holds no data in 1 tile with tissue"):
        plan_of(path, reader=reader)


def test_tiles_of_no_bytes_on_glass_are_none_the_worse(tmp_path, odd, plain_mm2):
    streams = [b"" if t.min() > 200 else odd.jpeg(t) for t in odd.tiles(odd.image)]
    assert b"" in streams
    plan = plan_of(odd.stored(tmp_path / "s.tif", streams, odd.levels[1::2]))
    assert plan.broken_tiles == 0
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)


# Which picture


def label() -> np.ndarray:
    picture = np.full((512, 512, 3), (230, 225, 200), np.uint8)
    cv2.putText(picture, "LABEL 1", (40, 250), 0, 2, (40, 40, 160), 6)
    return picture


@pytest.mark.parametrize(
    "name", ["label first", "two scenes", "planes", "label first, named", "scenes, the larger first"]
)
def test_of_several_pictures_none_is_chosen_silently(tmp_path, odd, name):
    image, path = odd.image, tmp_path / "s.tif"
    part = np.ascontiguousarray(image[:700, :900])
    first, second = {
        "label first": (label(), image),
        "two scenes": (part, image),
        "planes": (image, image),
        "label first, named": (label(), image),
        "scenes, the larger first": (image, part),
    }[name]
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
        options |= {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
        tif.write(first, description="label" if "named" in name else None, **options)
        tif.write(second, **options)
    with pytest.raises(WhichPictureError, match=r"page 0 of \d+ x \d+ px.*page 1 of"):
        open_slide(path)


def test_a_label_and_levels_that_do_not_say_so_are_no_other_slide(tmp_path, odd, plain_mm2):
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate", "metadata": None}
        options |= {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
        tif.write(odd.image, **options)
        tif.write(odd.levels[1], **options)
        tif.write(label(), description="Label", **options)
        tif.write(label()[:200, :300], **options)
    plan = plan_of(path)
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.02)
    assert any("another picture (page 3, 300 x 200 px)" in w for w in plan.warnings)


# Resolution

SAID = (
    "Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] (256x256) JPEG/RGB Q=70|AppMag = {mag}|MPP = {mpp}"
)
TAGS = {0.25: (4e4, 4e4), 0.5: (2e4, 2e4)}


def aperio(odd, path, size, mpp, tags=None, mag=40):
    small = odd.levels[0]
    options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256), "metadata": None}
    if tags:
        options |= {"resolution": TAGS[tags], "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, small, description=SAID.format(w=size[0], h=size[1], mpp=mpp, mag=mag), **options)
    return path


@pytest.mark.parametrize(
    ("size", "mpp", "tags", "mag", "words"),
    [
        ((600, 576), 0.25, 0.5, 40, ("0.25 um/px", "TIFF resolution tags: 0.5 um/px")),
        ((1200, 1152), 0.25, None, 40, ("0.25 um/px", "0.5 um/px")),
        ((600, 576), 0.99, None, 40, ("0.99 um/px", "magnification 40x")),
        ((600, 576), 0.25, None, 5, ("0.25 um/px", "magnification 5x")),
    ],
)
def test_a_resolution_said_twice_in_two_ways_is_refused_with_both(tmp_path, odd, size, mpp, tags, mag, words):
    path = aperio(odd, tmp_path / "s.svs", size, mpp, tags, mag)
    with pytest.raises(MppError, match="contradicts itself") as told:
        plan_of(path)
    for word in (*words, "--mpp", "column mpp"):
        assert word in str(told.value)
    assert plan_of(path, mpp=0.5).frame.level0_mpp == 0.5
    settings = RunSettings(mpp=0.5)
    reader = open_reader(path, settings)
    assert plan_slide(SlideInput("s", path), reader, settings, 0.25).frame.level0_mpp == 0.5


def test_tags_that_no_slide_can_have_do_not_hide_what_ome_xml_says(tmp_path, odd):
    path = tmp_path / "s.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        options = {"photometric": "rgb", "tile": (256, 256), "resolution": (72, 72), "resolutionunit": "INCH"}
        sizes = {
            "PhysicalSizeX": 250,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 250,
            "PhysicalSizeYUnit": "nm",
        }
        tif.write(odd.image, metadata={"axes": "YXS", **sizes}, **options)
    assert resolve_mpp(open_slide(path).info, None) == (pytest.approx(0.25), "OME-XML")


@pytest.mark.parametrize("said", [(0.25, 0.25), (0.25, 0.5)])
def test_ome_xml_is_believed_and_compared_with_the_tags(tmp_path, odd, said):
    path, (in_ome, in_tags) = tmp_path / "s.ome.tif", said
    with tifffile.TiffWriter(path, ome=True) as tif:
        options = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256)}
        options |= {"resolution": TAGS[in_tags], "resolutionunit": "CENTIMETER"}
        sizes = {f"PhysicalSize{a}{k}": v for a in "XY" for k, v in (("", in_ome), ("Unit", "µm"))}
        tif.write(odd.image, metadata={"axes": "YXS", **sizes}, **options)
    info = open_slide(path).info
    if in_ome == in_tags:
        assert resolve_mpp(info, None)[0] == pytest.approx(0.25)
    else:
        with pytest.raises(MppError, match=r"OME-XML: 0.25 um/px"):
            resolve_mpp(info, None)


def test_dicom_whose_size_in_mm_is_against_its_spacing_is_refused(tmp_path, odd):
    pytest.importorskip("pydicom")
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    path = odd.dicom(
        tmp_path / "s" / "a.dcm",
        streams,
        JPEG,
        "YBR_FULL_422",
        ImagedVolumeWidth=0.6,
        ImagedVolumeHeight=0.576,
    )
    with pytest.raises(MppError, match=r"size in mm in the DICOM header: 0.5 um/px"):
        plan_of(path)


def test_an_mpp_that_is_not_used_is_told(tmp_path, odd):
    path = odd.pages(tmp_path / "s.tif", odd.image)
    settings = RunSettings(mpp=0.5)
    plan = plan_slide(SlideInput("s", path), open_reader(path, settings), settings, 0.25)
    assert plan.frame.level0_mpp == pytest.approx(0.25)
    assert any("--mpp 0.5 was not used" in w for w in plan.warnings)
    assert not any("--mpp" in w for w in plan_of(path).warnings)


# Glass and ink


@pytest.mark.parametrize("tint", [(1, 1, 0.9), (1, 0.97, 0.8), (0.9, 0.95, 1), (1, 0.98, 0.95)])
def test_a_tinted_lamp_does_not_make_glass_tissue(tmp_path, odd, plain_mm2, tint):
    image = (odd.image * np.array(tint)).astype(np.uint8)
    plan = plan_of(odd.pages(tmp_path / "s.tif", image))
    assert plan.tissue_mm2 == pytest.approx(plain_mm2, rel=0.03)
    strong = min(tint) < 0.92
    assert any("The glass of the slide is not grey" in w for w in plan.warnings) == strong


def test_it_is_told_where_nearly_all_of_a_slide_is_tissue(tmp_path, odd):
    inside = np.ascontiguousarray(odd.image[300:850, 300:900])
    plan = plan_of(odd.pages(tmp_path / "s.tif", inside))
    assert any("Nearly all of the slide" in w for w in plan.warnings)
    assert not any("Nearly all" in w for w in plan_of(odd.pages(tmp_path / "w.tif", odd.image)).warnings)


def slide_picture() -> np.ndarray:
    """Return a low-resolution slide with a piece of tissue in its middle: glass, stroma, nuclei."""
    rng = np.random.default_rng(1)
    picture = np.full((300, 300, 3), (243, 242, 245), np.float32)
    density = rng.uniform(0.3, 0.7, (120, 120, 1)) * np.array((0.28, 0.75, 0.33))
    picture[90:210, 90:210] *= np.exp(-density)
    return picture.astype(np.uint8)


INKS = {
    "black": (25, 25, 28),
    "grey": (90, 90, 92),
    "red": (200, 30, 45),
    "dark red": (150, 20, 30),
    "blue": (35, 60, 150),
    "violet blue": (60, 55, 170),
    "light blue": (90, 150, 220),
    "green": (20, 120, 60),
    "dark green": (10, 60, 35),
}


@pytest.mark.parametrize("colour", INKS)
@pytest.mark.parametrize("where", ["on glass", "across tissue"])
def test_pen_marks_are_no_tissue(colour, where):
    plain = slide_picture()
    expected = tissue_of(plain)
    marked = plain.astype(np.float32)
    stroke = np.zeros(plain.shape[:2], np.float32)
    points = ((20, 40), (280, 40)) if where == "on glass" else ((30, 150), (270, 150))
    cv2.line(stroke, *points, 1.0, 12, cv2.LINE_AA)
    alpha = cv2.GaussianBlur(stroke, (0, 0), 1.0)[..., None]
    marked = (marked * (1 - alpha) + np.array(INKS[colour], np.float32) * alpha).astype(np.uint8)
    found = tissue_of(marked)
    inked = cv2.dilate((stroke > 0).astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    assert not (found & inked & ~expected).any()
    assert (found & (stroke == 1)).sum() < 0.1 * (stroke == 1).sum()
    assert (found & ~inked).sum() > 0.97 * (expected & ~inked).sum()
