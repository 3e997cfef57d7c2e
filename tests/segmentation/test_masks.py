"""The pyramid is the same whoever wrote it and however the blocks are cut, keeps each mitosis, and opens to be seen."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label import ImageLabel

from wsi_minugan.geometry import Frame, blocks_of
from wsi_minugan.segmentation.masks import layout, writing
from wsi_minugan.segmentation.masks.store import tune_zarr

FRAME = Frame(2311, 1803, 0.25, 1.0, 2311, 1803)


def written(store: Path, name: str, values: np.ndarray, block_px: int) -> list[np.ndarray]:
    """Write an array block by block, and return the levels of its pyramid."""
    writing.create_store(store, FRAME, block_px, nuclei=True)
    for box in blocks_of(FRAME, block_px):
        writing.write_block(store, name, box, values[box.slices_within(FRAME.box)])
    writing.build_pyramid(store, FRAME)
    folder = store / layout.PATHS[name][0]
    return [
        np.asarray(zarr.open_array(folder / str(k), mode="r")) for k in range(len(layout.level_shapes(FRAME)))
    ]


@pytest.mark.parametrize("block_px", [512, 1024, 1536, 2048])
def test_nuclei_keep_their_share_of_every_level(tmp_path: Path, block_px: int) -> None:
    values = np.random.default_rng(0).integers(0, 99, (1803, 2311)).astype(np.uint32)
    for level, found in enumerate(written(tmp_path / "m.zarr", "nuclei", values, block_px)):
        assert found.shape == layout.level_shapes(FRAME)[level]
        assert np.array_equal(found, values[:: 2**level, :: 2**level])


@pytest.mark.slow
@pytest.mark.parametrize("block_px", [512, 1024, 1536, 2048])
@pytest.mark.parametrize("name", ["mitoses", "classes", "mitosis_score"])
def test_each_mitosis_is_left_at_every_level(tmp_path: Path, name: str, block_px: int) -> None:
    values = np.zeros((1803, 2311), np.uint32 if name == "mitoses" else np.uint8)
    at = np.random.default_rng(1).permutation(28 * 36)[:60]  # of places 64 px apart
    ys, xs = 64 * (at // 36) + 37, 64 * (at % 36) + 21
    values[ys, xs] = np.arange(1, 61)
    for level, found in enumerate(written(tmp_path / "m.zarr", name, values, block_px)):
        padded = np.zeros([-(-side // 2**level) * 2**level for side in values.shape], values.dtype)
        padded[:1803, :2311] = values
        squares = padded.reshape(found.shape[0], 2**level, found.shape[1], 2**level)
        assert np.array_equal(found, squares.max(axis=(1, 3)))
        assert np.array_equal(np.unique(found), np.arange(61))


def test_every_group_says_what_it_is_and_every_image_has_a_window(tmp_path: Path) -> None:
    store = tmp_path / "m.zarr"
    writing.create_store(store, FRAME, 1024, nuclei=True)
    nodes = [json.loads(p.read_text()) for p in store.rglob("zarr.json")]
    groups = [node for node in nodes if node["node_type"] == "group"]
    assert len(groups) == 7  # root, coverage, score, labels and its three
    assert all(node["attributes"]["ome"]["version"] == "0.5" for node in groups)
    for name, end in (("", 1), ("coverage", 1), ("mitosis_score", 255)):
        group = zarr.open_group(store / name, mode="r")
        Image.from_zarr(group)
        window = group.attrs["ome"]["omero"]["channels"][0]["window"]
        assert window == {"min": 0, "start": 0, "end": end, "max": end}
    for name in ("classes", "mitoses", "nuclei"):
        ImageLabel.from_zarr(zarr.open_group(store / "labels" / name, mode="r"))


def test_ome_zarr_py_and_so_napari_shows_each_image_in_its_window(tmp_path: Path) -> None:
    why = "needs ome-zarr, whose pins conflict with ours: pip install --no-deps ome-zarr Deprecated wrapt"
    io, reader = (pytest.importorskip(f"ome_zarr.{name}", reason=why) for name in ("io", "reader"))
    store = tmp_path / "m.zarr"
    writing.create_store(store, FRAME, 1024, nuclei=True)
    for name, end in (("", 1), ("mitosis_score", 255)):
        image = next(iter(reader.Reader(io.parse_url(store / name))()))
        assert image.metadata["contrast_limits"] == [[0, end]]
        assert image.metadata["visible"] == [True]
        assert image.data[0].shape == (1803, 2311)
        assert len(image.data) == len(layout.level_shapes(FRAME))
    labels = {
        node.metadata["name"] for node in reader.Reader(io.parse_url(store))() if "color" in node.metadata
    }
    assert labels == {"classes", "mitoses", "nuclei"}


def test_pixels_of_reduced_levels_lie_in_the_middle_of_what_they_stand_for(tmp_path: Path) -> None:
    store = tmp_path / "m.zarr"
    writing.create_store(store, FRAME, 1024, nuclei=True)
    for name, middle in (("labels/mitoses", 0.375), ("labels/nuclei", 0.0)):
        group = zarr.open_group(store / name, mode="r")
        levels = group.attrs["ome"]["multiscales"][0]["datasets"]
        assert levels[2]["coordinateTransformations"][0]["scale"] == [1.0, 1.0]
        moved = [t["translation"] for t in levels[2]["coordinateTransformations"][1:]]
        assert moved == ([[middle, middle]] if middle else [])


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
                tune_zarr()
            writing.create_store(store, frame, 1536, nuclei=True)
            writing.write_block(store, "nuclei", box, values)
            writing.write_block(store, "mitoses", box, np.zeros_like(values))
        files = [p for p in sorted(store.rglob("*")) if p.is_file()]
        written.append({str(p.relative_to(store)): p.read_bytes() for p in files})
    assert written[0] == written[1]
    assert not any(name.startswith("labels/mitoses/0/c") for name in written[1])
    # Two of nine chunks hold something; the others cost a mark in the shard's index.
    assert len(written[1]["labels/nuclei/0/c/0/0"]) < values[512:1024, :1024].nbytes
