"""TIAToolbox behind the same protocol; in an environment of its own: make test-tiatoolbox."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_minugan.geometry import Box
from wsi_minugan.slides.drawn import Drawing
from wsi_minugan.slides.opening import open_slide

pytestmark = pytest.mark.tiatoolbox


def test_an_ome_tiff_is_read_as_it_was_written(tmp_path: Path) -> None:
    pixels = Drawing(700, 600, seed=2).draw(Box(0, 0, 600, 700))
    path = tmp_path / "s.ome.tiff"
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), metadata=metadata, ome=True)
    reader = open_slide(path, "tiatoolbox")
    assert (reader.info.width_px, reader.info.height_px) == (700, 600)
    assert reader.info.mpp_x == pytest.approx(0.25)
    box = Box(-10, 200, 300, 600)
    expected = np.full((300, 600, 3), 255, np.uint8)
    expected[10:, :500] = pixels[:290, 200:]
    assert np.array_equal(reader.read_level(0, box), expected)


def test_both_readers_give_the_same_pixels(slide: Path) -> None:
    box = Box(300, 400, 256, 256)
    a, b = open_slide(slide).read_level(0, box), open_slide(slide, "tiatoolbox").read_level(0, box)
    assert np.abs(a.astype(int) - b).max() <= 1
