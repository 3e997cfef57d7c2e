"""The engine on a real cluster of processes, with stages that sleep or kill their worker."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cloudpickle
import dask
import pytest
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from minugan_jobs.clusters.cluster import _DASK, open_cluster
from minugan_jobs.clusters.worker_failures import tell_begun
from minugan_jobs.scheduler import Engine, Event
from minugan_jobs.staging import InPlace
from minugan_jobs.state.ledger import Ledger, SlideRecord
from minugan_jobs.tasks import Job, Outcome, Planned, Stage
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput

BLOCKS, SLEEP_S = 4, 0.25
LARGE = 60


class Stages(WorkerPlugin):
    """Stages that sleep; block 1 of the slide "deadly" ends its worker, and the slide "large" keeps a list of its tasks."""

    name = WorkerState.name

    def setup(self, worker: Worker) -> None:
        self.worker = worker

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        slide_id = job.slide.slide_id
        tell_begun(self.worker)
        if (slide_id, stage, *blocks) == ("deadly", "analyse", 1):
            time.sleep(0.05)
            with (job.model / "deaths").open("a") as f:
                f.write("x")
            os._exit(1)
        if slide_id == "large":
            with (job.model / "tasks").open("a") as f:
                f.write(f"{stage} {' '.join(map(str, blocks))}\n")
        else:
            time.sleep(SLEEP_S)
        if stage == "plan":
            count = LARGE if slide_id == "large" else BLOCKS
            return Outcome(SLEEP_S, planned=Planned(slide_id, tuple(range(count)), "new"))
        row = SlideState(slide_id=slide_id, path=slide_id, status="done") if stage == "finish" else None
        return Outcome(SLEEP_S, row=row)


def run_engine(
    folder: Path, names: list[str], config: dict[str, object] = _DASK
) -> tuple[dict[str, str], float]:
    """Return each slide's error ("" where done) and the seconds from the first plan to the end."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ledger = Ledger(folder)
    ledger.add_slides([SlideInput(n, Path(f"/{n}.svs")) for n in names])
    events: list[Event] = []

    def job(record: SlideRecord) -> Job:
        return Job(record.slide, folder / record.slide.slide_id, RunSettings(), folder, "")

    with (
        dask.config.set(config),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(Stages())
        start = time.monotonic()
        Engine(client, ledger, InPlace(ledger.slides()), job, events.append, lambda: False).run()
        spent = time.monotonic() - start
    found = {s.slide_id: s.error for s in ledger.states() if s.status in {"done", "failed"}}
    ledger.close()
    return found, spent


@pytest.mark.slow
def test_a_block_that_kills_two_workers_fails_its_slide_and_the_others_go_on(tmp_path: Path) -> None:
    found, _ = run_engine(tmp_path, ["first", "deadly", "last"])
    assert found["first"] == found["last"] == ""
    assert "2 worker processes died on block 1 of deadly" in found["deadly"]
    assert len((tmp_path / "deaths").read_text()) == 2


@pytest.mark.slow
def test_a_scheduler_with_limits_of_its_own_gives_no_block_to_a_third_worker(tmp_path: Path) -> None:
    # As one that somebody else started: it would give the block to four workers, and two tasks to each.
    found, _ = run_engine(
        tmp_path, ["first", "deadly", "last"], {"distributed.scheduler.allowed-failures": 3}
    )
    assert found["first"] == found["last"] == ""
    assert "2 worker processes died on block 1 of deadly" in found["deadly"]
    assert len((tmp_path / "deaths").read_text()) == 2


@pytest.mark.slow
@pytest.mark.alone
def test_workers_hardly_wait_between_the_slides_of_a_batch(tmp_path: Path) -> None:
    found, spent = run_engine(tmp_path, [f"s{k}" for k in range(8)])
    assert list(found.values()) == [""] * 8
    busy = 8 * (3 + 2 * BLOCKS) * SLEEP_S / (2 * spent)
    assert busy > 0.85, busy


@pytest.mark.slow
def test_blocks_are_analysed_one_by_one_and_written_several_at_once(tmp_path: Path) -> None:
    found, _ = run_engine(tmp_path, ["large"])
    assert found == {"large": ""}
    tasks = [line.split() for line in (tmp_path / "tasks").read_text().splitlines()]
    blocks = {s: [b for stage, *b in tasks if stage == s] for s in ("analyse", "write")}
    for stage, at_once in (("analyse", 1), ("write", 8)):
        assert sorted(int(k) for b in blocks[stage] for k in b) == list(range(LARGE))
        assert max(map(len, blocks[stage])) == at_once


@pytest.mark.slow
def test_a_worker_has_as_many_threads_as_the_settings_say() -> None:
    def threads() -> tuple[int, int]:
        import cv2
        import torch

        return cv2.getNumThreads(), torch.get_num_threads()

    with open_cluster(RunSettings(workers=2), Stages()) as client:
        assert list(client.run(threads).values()) == [(1, 1)] * 2
