"""Work without workers: a batch system that takes no jobs, and workers that do not come."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import minugan_jobs.clusters.slurm
import minugan_jobs.clusters.worker_wait
import minugan_jobs.scheduler
import pytest
import yaml
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, WorkerPlugin
from minugan_jobs.clusters import worker_wait
from minugan_jobs.clusters.cluster_file import load_cluster, start_cluster
from minugan_jobs.scheduler import Engine, Event
from minugan_jobs.staging import InPlace
from minugan_jobs.state.ledger import Ledger, SlideRecord
from minugan_jobs.tasks import Job, Outcome, Planned, Stage
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput

REFUSAL = "sbatch: error: invalid partition specified: nowhere"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cluster file for a SLURM that takes jobs only while there is a file "open" in the folder of its commands."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "sbatch").write_text(
        f'#!/bin/sh\nif [ -e "{commands}/open" ]; then echo "Submitted batch job 1"; else echo "{REFUSAL}" >&2; exit 1; fi\n'
    )
    (commands / "scancel").write_text("#!/bin/sh\n")
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    options = {"cores": 1, "processes": 1, "memory": "1GB", "interface": "lo", "queue": "nowhere"}
    described = {"kind": "slurm", "workers": {"minimum": 0, "maximum": 4}, "options": options}
    file = tmp_path / "slurm.yaml"
    file.write_text(yaml.safe_dump(described))
    return file


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_cluster_whose_jobs_are_all_refused_ends_the_run_with_the_cause(
    tmp_path: Path, slurm: Path, slide: Path, run_command
) -> None:
    done = run_command("run", slide, "-o", tmp_path / "o", "--cluster", slurm, "--quiet")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"Error: The batch system takes no job of this cluster: {REFUSAL}. Check 'options'"
    )
    last = json.loads((tmp_path / "o" / "log.jsonl").read_text().splitlines()[-1])
    assert REFUSAL in last["error"]
    assert "pending" in (tmp_path / "o" / "slides.csv").read_text()


def test_a_job_that_is_refused_after_others_were_taken_is_told_and_asked_for_again(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(minugan_jobs.clusters.slurm, "_AGAIN_S", 0.2)
    door = slurm.parent / "commands" / "open"
    door.touch()
    cluster = start_cluster(load_cluster(slurm), {})
    try:
        cluster.adapt(minimum=1, maximum=4, interval="100ms")
        until(lambda: cluster.submissions.taken == 1)
        door.unlink()
        cluster.adapt(minimum=2, maximum=4, interval="100ms")
        until(lambda: REFUSAL in caplog.text)
        assert not cluster.submissions.hopeless
        door.touch()
        until(lambda: cluster.submissions.taken == 2)
    finally:
        cluster.close()


class Stages(WorkerPlugin):
    """Stages that end at once; each analysed block is told with its worker's name."""

    name = WorkerState.name

    def setup(self, worker: Worker) -> None:
        self.worker = worker

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        if stage == "plan":
            return Outcome(0.0, planned=Planned("key", (0, 1, 2), "new"))
        if stage == "analyse":
            with (job.model / "analysed").open("a") as f:
                f.write(f"{self.worker.name} ")
        row = SlideState(slide_id="s", path="s", status="done") if stage == "finish" else None
        return Outcome(0.0, row=row)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_work_that_waits_for_gpus_that_are_gone_is_told_and_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str
) -> None:
    for name, seconds in (("_FIRST_S", 0.2), ("_AGAIN_S", 0.2), ("PATIENCE_S", 1.0)):
        monkeypatch.setattr(worker_wait, name, seconds)
    monkeypatch.setattr(minugan_jobs.scheduler, "_COUNT_WORKERS_S", 0.05)
    ledger = Ledger(tmp_path)
    ledger.add_slides([SlideInput("s", Path("/s.svs"))])
    late = threading.Event()

    def job(record: SlideRecord) -> Job:
        return Job(record.slide, tmp_path / "s", RunSettings(device=device), tmp_path, "")

    workers = {
        "gpu": {"cls": Worker, "options": {"nthreads": 1, "resources": {"GPU": 1}, "dashboard": False}},
        "cpu": {"cls": Worker, "options": {"nthreads": 1, "dashboard": False}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard": False}}
    with (
        caplog.at_level(logging.WARNING, "minugan_jobs"),
        SpecCluster(workers=workers, scheduler=scheduler) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2)
        client.register_plugin(Stages())

        def observe(event: Event) -> None:
            if event.kind == "started":
                cluster.sync(cluster.workers["gpu"].close)  # before any of the slide's work is done

        def stopped() -> bool:
            return late.is_set() or (device == "cuda" and caplog.text.count("No worker with a GPU for") > 1)

        alarm = threading.Timer(60, late.set)
        alarm.start()
        engine = Engine(client, ledger, InPlace(ledger.slides()), job, observe, stopped)
        engine._count_workers()
        engine.run()
        alarm.cancel()
    assert not late.is_set()
    assert "No worker with a GPU for" in caplog.text
    state = ledger.states()[0].status
    ledger.close()
    if device == "cuda":
        assert state == "running"
        return
    assert state == "done"
    assert "The workers with a GPU are gone: s goes on without one" in caplog.text
    assert set((tmp_path / "analysed").read_text().split()) == {"cpu"}


@pytest.mark.parametrize("outside", [True, False], ids=["scheduler", "cluster"])
def test_work_without_a_worker_is_told_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, outside: bool
) -> None:
    monkeypatch.setattr(minugan_jobs.clusters.worker_wait, "_FIRST_S", 0.2)
    monkeypatch.setattr(minugan_jobs.clusters.worker_wait, "_AGAIN_S", 0.2)
    monkeypatch.setattr(minugan_jobs.scheduler, "_COUNT_WORKERS_S", 0.05)
    ledger = Ledger(tmp_path)
    ledger.add_slides([SlideInput("s", Path("/s.svs"))])
    told = threading.Event()

    def job(record: SlideRecord) -> Job:
        return Job(record.slide, tmp_path / "s", RunSettings(), tmp_path, "")

    def twice() -> bool:
        return told.is_set() or caplog.text.count("No worker for ") >= 2

    with (
        caplog.at_level(logging.WARNING, "minugan_jobs"),
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster.scheduler_address if outside else cluster, set_as_default=False) as client,
    ):
        late = threading.Timer(30, told.set)
        late.start()
        Engine(client, ledger, InPlace(ledger.slides()), job, lambda event: None, twice).run()
        late.cancel()
        assert caplog.text.count("No worker for ") == 2
        assert (f"dask worker {cluster.scheduler_address}" in caplog.text) == outside
    ledger.close()
