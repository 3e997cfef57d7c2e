"""OME-TIFF and OME-Zarr without TIAToolbox: the pixels are those of OpenSlide where both open, and the rest is refused in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import NotBrightfieldError, SlideUnreadableError, TileUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.pipeline.plan import plan_slide
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.ome.array_reader import ArrayReader
from wsi_minugan.slides.ome.ome_tiff import open_ome_tiff
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.reader import resolve_mpp
from wsi_minugan.slides.synthetic import SyntheticSlide

BOXES = [Box(0, 0, 600, 700), Box(100, 250, 300, 200), Box(-20, -30, 100, 90), Box(560, 650, 100, 100)]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return SyntheticSlide(700, 600, seed=2).draw(Box(0, 0, 600, 700))


def write_ngff(path: Path, pixels: np.ndarray, axes: str = "yxc", zarr_format: Any = 2, **more: Any) -> None:
    """Write an OME-Zarr of two levels, version 0.4 or 0.5."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    y, x = axes.index("y"), axes.index("x")
    half = tuple(slice(None, None, 2) if k in (y, x) else slice(None) for k in range(len(axes)))
    datasets = []
    for k, level in enumerate((pixels, np.ascontiguousarray(pixels[half]))):
        group.create_array(str(k), data=level, chunks=tuple(min(256, n) for n in level.shape))
        scale = [0.25 * 2**k if a in "yx" else 1.0 for a in axes]
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    unit = more.get("unit", "micrometer")
    named = [
        {"name": a} | ({"type": "space", "unit": unit} if a in "yx" else {"type": "channel"}) for a in axes
    ]
    image = {"axes": named, "datasets": datasets}
    group.attrs.update(
        {"ome": {"version": "0.5", "multiscales": [image]}} if zarr_format == 3 else {"multiscales": [image]}
    )


def shifted(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Return a region of an image, white outside."""
    out = np.full((box.height_px, box.width_px, 3), 255, np.uint8)
    inside = box.clipped(Box(0, 0, *pixels.shape[:2]))
    out[inside.slices_within(box)] = pixels[inside.slices_within(Box(0, 0, 0, 0))]
    return out


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["yxc", "cyx", "tczyx"])
def test_ome_zarr_gives_the_pixels_that_were_written(
    tmp_path: Path, pixels: np.ndarray, axes: str, zarr_format: int
) -> None:
    stored = pixels if axes == "yxc" else np.moveaxis(pixels, 2, 0)
    write_ngff(tmp_path / "s.zarr", stored[None, :, None] if axes == "tczyx" else stored, axes, zarr_format)
    reader = open_slide(tmp_path / "s.zarr")
    assert resolve_mpp(reader.info, None)[0] == 0.25
    assert [(v.width_px, v.height_px, v.downsample) for v in reader.info.levels] == [
        (700, 600, 1.0),
        (350, 300, 2.0),
    ]
    for box in BOXES:
        assert np.array_equal(reader.read_level(0, box), shifted(pixels, box))
    assert np.array_equal(reader.read_level(1, Box(0, 0, 300, 350)), pixels[::2, ::2])
    reader.close()


def test_ome_tiff_is_pixel_equal_to_openslide_where_both_open(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "s.ome.tiff"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), metadata=metadata, ome=True)
    theirs, own = open_slide(path, "openslide"), open_ome_tiff(path)
    for box in BOXES:
        assert np.array_equal(own.read_level(0, box), theirs.read_level(0, box))
    assert own.info.mpp_x == 0.25
    own.close()


@pytest.mark.parametrize(("axes", "tile"), [("YXS", None), ("CYX", (256, 256))])
def test_what_openslide_does_not_open_is_read_by_tifffile(
    tmp_path: Path, pixels: np.ndarray, axes: str, tile: tuple[int, int] | None
) -> None:
    path, planar = tmp_path / "s.ome.tif", axes == "CYX"
    stored = np.moveaxis(pixels, 2, 0) if planar else pixels
    tifffile.imwrite(
        path,
        stored,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        tile=tile,
        metadata={"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        ome=True,
    )
    reader = open_ome_tiff(path)
    assert resolve_mpp(reader.info, None)[0] == 0.5
    for box in BOXES:
        assert np.array_equal(reader.read_level(0, box), shifted(pixels, box))
    reader.close()
    if tile is None:
        assert isinstance(open_slide(path), ArrayReader)


@pytest.mark.parametrize(
    ("change", "axes", "error"),
    [
        (lambda p: p.astype(np.uint16), "yxc", NotBrightfieldError),
        (lambda p: p[..., :2], "yxc", NotBrightfieldError),
        (lambda p: np.stack([np.moveaxis(p, 2, 0)] * 2, axis=1), "czyx", SlideUnreadableError),
        (lambda p: p[..., 0], "yx", SlideUnreadableError),
    ],
    ids=["16 bits", "two channels", "two planes", "grey"],
)
def test_other_images_are_refused(
    tmp_path: Path, pixels: np.ndarray, change: Any, axes: str, error: type
) -> None:
    write_ngff(tmp_path / "s.zarr", change(pixels), axes)
    with pytest.raises(error):
        open_slide(tmp_path / "s.zarr")


def test_damage_is_a_sentence(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "odd.zarr").mkdir()
    (tmp_path / "odd.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "odd.zarr" / ".zattrs").write_text('{"multiscales": "many"}')
    for name in ("empty.zarr", "odd.zarr"):
        with pytest.raises(SlideUnreadableError, match="OME-Zarr"):
            open_slide(tmp_path / name)
    write_ngff(tmp_path / "s.zarr", pixels)
    for chunk in (tmp_path / "s.zarr" / "0").glob("[0-9]*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    reader = open_slide(tmp_path / "s.zarr")
    with pytest.raises(TileUnreadableError, match="does not decode"):
        reader.read_level(0, Box(0, 0, 256, 256))


def test_a_resolution_without_a_unit_is_none(tmp_path: Path, pixels: np.ndarray) -> None:
    write_ngff(tmp_path / "s.zarr", pixels, unit="pixel")
    assert open_slide(tmp_path / "s.zarr").info.mpp_x is None


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["yxc", "cyx"])
def test_a_chunk_that_is_lost_is_a_broken_tile(tmp_path: Path, axes: str, zarr_format: int) -> None:
    # It reads as black or white, as the file's fill value has it.
    image = SyntheticSlide(1000, 900, seed=2).draw(Box(0, 0, 900, 1000))
    path = tmp_path / "s.zarr"
    write_ngff(path, image if axes == "yxc" else np.moveaxis(image, 2, 0), axes, zarr_format)
    settings = RunSettings()
    whole = plan_slide(SlideInput("s", path), open_slide(path), settings, 0.25)
    assert whole.broken_tiles == 0
    assert not whole.info.notes
    (path / LOST[axes, zarr_format]).unlink()
    with pytest.raises(TileUnreadableError, match="level 0 holds no data in 1 tile with tissue"):
        plan_slide(SlideInput("s", path), open_slide(path), settings, 0.25)


LOST = {
    ("yxc", 2): "0/1.1.0",
    ("cyx", 2): "0/0.1.1",
    ("yxc", 3): "0/c/1/1/0",
    ("cyx", 3): "0/c/0/1/1",
}
"""The file of the chunk in the middle."""


def test_chunks_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    write_nothing(tmp_path / "s.zarr", 100_000, 100_000, 100_000)
    with pytest.raises(SlideUnreadableError, match="256 MB"):
        open_slide(tmp_path / "s.zarr")


@pytest.mark.parametrize(("width", "height"), [(2**22, 10), (2**20, 2**20)])
def test_a_slide_larger_than_any_is_refused_before_memory_is_taken(
    tmp_path: Path, width: int, height: int
) -> None:
    write_nothing(tmp_path / "s.zarr", width, height, 512)
    with pytest.raises(SlideUnreadableError, match="more than any slide"):
        open_slide(tmp_path / "s.zarr")


def write_nothing(path: Path, width: int, height: int, chunk: int) -> None:
    """Write the metadata of an OME-Zarr of one level, and no pixels."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=(height, width, 3), chunks=(chunk, chunk, 3), dtype="uint8")
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"] + [
        {"name": "c", "type": "channel"}
    ]
    scale = {"type": "scale", "scale": [0.25, 0.25, 1.0]}
    group.attrs["multiscales"] = [
        {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    ]
