"""TIAToolbox behind the same protocol; in an environment of its own: make test-tiatoolbox."""

from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from wsi_minugan.errors import MppError, NotBrightfieldError, SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.reader import resolve_mpp
from wsi_minugan.slides.synthetic import SyntheticSlide

pytestmark = pytest.mark.tiatoolbox

HAS_OPENJPEG = find_library("openjp2") is not None
OPENJPEG = pytest.mark.skipif(not HAS_OPENJPEG, reason="needs OpenJPEG: apt-get install libopenjp2-7")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return SyntheticSlide(700, 600, seed=2).draw(Box(0, 0, 600, 700))


def write_ome_tiff(path: Path, pixels: np.ndarray, axes: str = "YXS") -> None:
    metadata = {
        "axes": axes,
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
    }
    kind = "rgb" if axes == "YXS" else "minisblack"
    tifffile.imwrite(path, pixels, photometric=kind, tile=(256, 256), metadata=metadata, ome=True)


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=kind, tile=(256, 256), metadata=None)


def write_jp2(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(
        imagecodecs.jpeg2k_encode(np.ascontiguousarray(pixels), level=0, codecformat="JP2", reversible=True)
    )


def write_ngff(path: Path, pixels: np.ndarray, axes: str = "yxc") -> None:
    """Write an OME-Zarr 0.4 of one level with 0.25 um/px; no more than TIAToolbox asks for."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=pixels, chunks=tuple(min(256, n) for n in pixels.shape))
    space = {"type": "space", "unit": "micrometer"}
    scale = [{"type": "scale", "scale": [1.0 if a == "c" else 0.25 for a in axes]}]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "name": "s",
            "axes": [{"name": a} | ({"type": "channel"} if a == "c" else space) for a in axes],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }
    ]
    group.attrs["omero"] = {"channels": [], "rdefs": {"defaultT": 0, "defaultZ": 0, "model": "color"}}
    group.attrs["_creator"] = {"name": "test", "version": "1"}


@pytest.mark.parametrize(
    ("name", "write", "mpp"),
    [
        ("s.ome.tiff", write_ome_tiff, 0.25),
        ("s.zarr", write_ngff, 0.25),
        pytest.param("s.jp2", write_jp2, None, marks=OPENJPEG),
    ],
)
def test_what_openslide_does_not_open_is_read_as_it_was_written(
    tmp_path: Path, pixels: np.ndarray, name: str, write: Callable[..., None], mpp: float | None
) -> None:
    write(tmp_path / name, pixels)
    reader = open_slide(tmp_path / name, "tiatoolbox")
    assert (reader.info.width_px, reader.info.height_px) == (700, 600)
    assert reader.info.mpp_x == (None if mpp is None else pytest.approx(mpp))
    box = Box(-10, 200, 300, 600)
    expected = np.full((300, 600, 3), 255, np.uint8)
    expected[10:, :500] = pixels[:290, 200:]
    assert np.array_equal(reader.read_level(0, box), expected)


def test_an_ngff_with_its_channels_first_is_read_the_same(tmp_path: Path, pixels: np.ndarray) -> None:
    write_ngff(tmp_path / "s.zarr", np.moveaxis(pixels, 2, 0), "cyx")
    reader = open_slide(tmp_path / "s.zarr", "tiatoolbox")
    assert np.array_equal(reader.read_level(0, Box(100, 100, 64, 80)), pixels[100:164, 100:180])


@pytest.mark.skipif(HAS_OPENJPEG, reason="OpenJPEG is here")
def test_without_openjpeg_a_jp2_says_what_to_install(tmp_path: Path, pixels: np.ndarray) -> None:
    write_jp2(tmp_path / "s.jp2", pixels)
    with pytest.raises(SlideUnreadableError, match="apt-get install libopenjp2-7"):
        open_slide(tmp_path / "s.jp2", "tiatoolbox")


@OPENJPEG
def test_a_jp2_does_not_say_its_resolution_and_is_told_so(tmp_path: Path, pixels: np.ndarray) -> None:
    write_jp2(tmp_path / "s.jp2", pixels)
    info = open_slide(tmp_path / "s.jp2", "tiatoolbox").info
    with pytest.raises(MppError, match="--mpp"):
        resolve_mpp(info, None)


def test_both_readers_give_the_same_pixels(slide: Path) -> None:
    box = Box(300, 400, 256, 256)
    a, b = open_slide(slide).read_level(0, box), open_slide(slide, "tiatoolbox").read_level(0, box)
    assert np.abs(a.astype(int) - b).max() <= 1


def deep(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "write", "change", "words"),
    [
        ("s.ome.tiff", write_ome_tiff, deep, "3 channel(s) of 16 bits"),
        ("s.tiff", write_tiff, deep, "3 channel(s) of 16 bits"),
        ("s.svs", write_tiff, deep, "3 channel(s) of 16 bits"),
        pytest.param("s.jp2", write_jp2, deep, "3 channel(s) of 16 bits", marks=OPENJPEG),
        ("s.zarr", write_ngff, deep, "3 channel(s) of 16 bits"),
        ("s.tiff", write_tiff, lambda p: p[..., 0], "1 channel(s) of 8 bits"),
        pytest.param("s.jp2", write_jp2, lambda p: p[..., 0], "1 channel(s) of 8 bits", marks=OPENJPEG),
        ("s.zarr", write_ngff, lambda p: p[..., :2], "2 channel(s) of 8 bits"),
    ],
)
def test_what_is_not_8_bit_rgb_is_refused_as_by_the_other_readers(
    tmp_path: Path, pixels: np.ndarray, name: str, write: Callable[..., None], change, words: str
) -> None:
    write(tmp_path / name, change(pixels))
    with pytest.raises(NotBrightfieldError, match="brightfield") as told:
        open_slide(tmp_path / name, "tiatoolbox")
    assert words in str(told.value)


@pytest.mark.parametrize("channels", [1, 2])
def test_fluorescence_in_an_ome_tiff_is_refused(tmp_path: Path, pixels: np.ndarray, channels: int) -> None:
    write_ome_tiff(tmp_path / "s.ome.tiff", np.moveaxis(pixels, 2, 0)[:channels], "CYX")
    with pytest.raises(NotBrightfieldError, match="channel"):
        open_slide(tmp_path / "s.ome.tiff", "tiatoolbox")


def test_pixels_that_do_not_fit_are_never_wrapped(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_slide(slide, "tiatoolbox")
    monkeypatch.setattr(reader._reader, "read_rect", lambda *_, **__: np.full((8, 8, 3), 256, np.uint16))
    with pytest.raises(NotBrightfieldError, match="16 bits"):
        reader.read_level(0, Box(0, 0, 8, 8))


def write_bad(folder: Path, name: str, slide: Path) -> Path:
    """Write what no reader opens: nothing, text, half a slide, or a folder that is no NGFF."""
    path = folder / name
    if path.suffix == ".zarr":
        (path / "0").mkdir(parents=True)
    elif "truncated" in name:
        data = slide.read_bytes()
        # The directory of a scanner's file comes last.
        path.write_bytes(data[:4] + len(data).to_bytes(4, "little") + data[8 : len(data) // 3])
    else:
        path.write_text("" if "empty" in name else "plain text")
    return path


BAD = [
    *("truncated.svs", "truncated.ome.tiff", "empty.svs", "empty.tiff"),
    *("text.svs", "text.ndpi", "text.png", "text.xyz", "no ngff.zarr"),
    *(pytest.param(f"{how}.jp2", marks=OPENJPEG) for how in ("truncated", "empty", "text")),
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_slide_says_so(tmp_path: Path, slide: Path, name: str) -> None:
    path = write_bad(tmp_path, name, slide)
    with pytest.raises(SlideUnreadableError, match="cannot be opened by TIAToolbox"):
        open_slide(path, "tiatoolbox")


@pytest.mark.parametrize("name", ["truncated.svs", "no ngff.zarr", "text.xyz"])
def test_inspect_tells_one_sentence_of_what_is_no_slide(
    tmp_path: Path, slide: Path, run_command, name: str
) -> None:
    done = run_command("inspect", write_bad(tmp_path, name, slide), "--reader", "tiatoolbox")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cannot be opened by TIAToolbox" in done.stderr


@pytest.mark.parametrize(("name", "write"), [("s.zarr", write_ngff), ("s.ome.tiff", write_ome_tiff)])
def test_inspect_shows_what_tiatoolbox_opens(
    tmp_path: Path, pixels: np.ndarray, run_command, name: str, write: Callable[..., None]
) -> None:
    write(tmp_path / name, pixels)
    done = run_command("inspect", tmp_path / name, "--reader", "tiatoolbox")
    assert done.returncode == 0, done.stderr
    assert "700 x 600 px" in done.stdout
    assert "0.2500 um/px (TIAToolbox)" in done.stdout
    assert done.stderr == ""
