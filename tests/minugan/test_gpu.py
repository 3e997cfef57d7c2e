"""What only a GPU can show, and reading ahead, which it needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.pipeline.blocks.patches import rows_of, strips
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.opening import open_slide

PATCHES = np.random.default_rng(0).integers(0, 256, (6, 256, 256, 3), np.uint8)


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_scores() -> None:
    bundle = load_bundle(find_bundle("default"))
    cpu = Predictor(bundle, "cpu", "fp32").predict(PATCHES).astype(int)
    gpu = Predictor(bundle, "cuda", "fp32", batch_size=4).predict(PATCHES).astype(int)
    assert np.abs(cpu - gpu).max() <= 2
    fast = Predictor(bundle, "cuda", "bf16", batch_size=4).predict(PATCHES).astype(int)
    assert np.abs(cpu - fast).mean() < 2


@pytest.mark.gpu
def test_a_batch_too_large_for_the_gpu_is_halved_and_remembered() -> None:
    bundle = load_bundle(find_bundle("default"))
    torch.cuda.set_per_process_memory_fraction(0.02)
    predictor = Predictor(bundle, "cuda", "fp32", batch_size=1024)
    scores = predictor.predict(np.zeros((1024, 256, 256, 3), np.uint8))
    assert scores.shape[0] == 1024
    assert predictor.batch_size < 1024
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_reading_ahead_gives_the_same_rows_in_order(slide: Path, ahead: int) -> None:
    from wsi_minugan.geometry import analysis_frame

    reader = open_slide(slide)
    frame = analysis_frame(reader.info.width_px, reader.info.height_px, 0.25, 0.25)
    grid, view = PatchGrid(frame.height_px, frame.width_px, 192), AnalysisView(reader, frame)
    rows = rows_of(grid.patches_for(Box(0, 0, frame.height_px, frame.width_px)))
    plain, read_ahead = list(strips(grid, rows, view, 0)), list(strips(grid, rows, view, ahead))
    assert [r for r, _ in plain] == [r for r, _ in read_ahead] == rows
    for (_, (box, pixels)), (_, (other_box, other_pixels)) in zip(plain, read_ahead, strict=True):
        assert box == other_box
        assert np.array_equal(pixels, other_pixels)
    reader.close()
