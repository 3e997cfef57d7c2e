"""A batch of one slide in one process: `python batch.py SLIDE OUT`."""

import sys
from pathlib import Path

from distributed import LocalCluster
from minugan_jobs.run import run_batch

from wsi_minugan.config import RunSettings
from wsi_minugan.slides.inputs import SlideInput


def run(slide: Path, out: Path) -> str:
    """Run the batch, and return its slide's status."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        settings = RunSettings(scheduler=cluster.scheduler_address, block_px=512)
        return run_batch([SlideInput("s", slide)], out, settings, lambda event: None).slides[0].status


if __name__ == "__main__":
    assert run(*map(Path, sys.argv[1:])) == "done"
