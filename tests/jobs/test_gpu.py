"""A run on a GPU: workers that share it, and the API's one process, give the same files."""

from pathlib import Path

import pytest

from wsi_minugan import analyze
from wsi_minugan.outputs.manifest import read_manifest


@pytest.mark.gpu
def test_workers_that_share_a_gpu_give_the_files_of_one_process(
    slide: Path, tmp_path: Path, run_command
) -> None:
    done = run_command(
        "run", slide, "-o", tmp_path / "out", "--device", "cuda", "--workers", "3", "--block", "512"
    )
    assert done.returncode == 0, done.stderr
    own = analyze(slide, out=tmp_path / "own", device="cuda", block_px=512)
    assert own.manifest.files == read_manifest(tmp_path / "out" / slide.stem).files
