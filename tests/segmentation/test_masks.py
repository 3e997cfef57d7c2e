"""The pyramid is every second pixel of the level below, whoever wrote it and however the blocks are cut."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from wsi_minugan.geometry import Frame, blocks_of
from wsi_minugan.segmentation import masks


@pytest.mark.parametrize("block_px", [512, 1024, 1536, 2048])
def test_the_pyramid_halves_every_level(tmp_path: Path, block_px: int) -> None:
    frame = Frame(2311, 1803, 0.25, 1.0, 2311, 1803)
    values = np.random.default_rng(0).integers(0, 99, (1803, 2311)).astype(np.uint32)
    store = tmp_path / "m.zarr"
    masks.create_store(store, frame, block_px, nuclei=True)
    for box in blocks_of(frame, block_px):
        masks.write_block(store, "nuclei", box, values[box.slices_within(frame.box)])
    masks.build_pyramid(store, frame)
    for level, shape in enumerate(masks.level_shapes(frame)):
        found = np.asarray(zarr.open_array(store / "labels" / "nuclei" / str(level), mode="r"))
        assert found.shape == shape
        assert np.array_equal(found, values[:: 2**level, :: 2**level])
