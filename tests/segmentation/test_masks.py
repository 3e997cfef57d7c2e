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


def test_tuning_zarr_changes_no_byte_and_empty_chunks_stay_absent(tmp_path: Path) -> None:
    frame = Frame(1536, 1536, 0.25, 1.0, 1536, 1536)
    box = next(blocks_of(frame, 1536))
    values = np.zeros((1536, 1536), np.uint32)
    values[600:900, 20:700] = np.random.default_rng(0).integers(0, 99, (300, 680))
    written = []
    for tuned in (False, True):
        store = tmp_path / str(tuned)
        with zarr.config.set({"ndbuffer": "zarr.buffer.cpu.NDBuffer", "codec_pipeline.batch_size": 1}):
            if tuned:
                masks.tune_zarr()
            masks.create_store(store, frame, 1536, nuclei=True)
            masks.write_block(store, "nuclei", box, values)
            masks.write_block(store, "mitoses", box, np.zeros_like(values))
        files = [p for p in sorted(store.rglob("*")) if p.is_file()]
        written.append({str(p.relative_to(store)): p.read_bytes() for p in files})
    assert written[0] == written[1]
    assert not any(name.startswith("labels/mitoses/0/c") for name in written[1])
    # Two of nine chunks hold something; the others cost a mark in the shard's index.
    assert len(written[1]["labels/nuclei/0/c/0/0"]) < values[512:1024, :1024].nbytes
