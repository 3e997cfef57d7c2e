"""What the engine itself costs: a real Dask cluster and a real ledger, with stages that only sleep.

    python tests/benchmarks/simulation.py [--slides 5000] [--blocks 400] [--workers 64] [--run 40] [--sleep 0.2]

Enters all slides into the ledger, runs the first ones, prints CPU time a block (client, scheduler and workers are one process) and
memory as it goes; then opens the half-done batch again and prints how long its first block takes to start.
"""

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

import dask
import psutil
from distributed import Client, LocalCluster, Worker, WorkerPlugin
from minugan_jobs.cluster import _DASK
from minugan_jobs.deaths import tell_begun
from minugan_jobs.engine import Engine, Event
from minugan_jobs.ledger import Ledger, SlideRecord
from minugan_jobs.supply import InPlace
from minugan_jobs.work import Bench, Job, Outcome, Planned, Stage

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput


class Sleeper(WorkerPlugin):
    """Stages that only sleep."""

    name = Bench.name

    def __init__(self, blocks: int, sleep_s: float) -> None:
        self.blocks, self.sleep_s = blocks, sleep_s

    def setup(self, worker: Worker) -> None:
        """Take note of where this is."""
        self.worker = worker

    def run(self, stage: Stage, job: Job, index: int, previous_key: str) -> Outcome:
        """Sleep as a stage."""
        tell_begun(self.worker)
        time.sleep(self.sleep_s)
        name = job.slide.slide_id
        if stage == "plan":
            state = "resumed" if previous_key else "new"
            return Outcome(self.sleep_s, planned=Planned(name, tuple(range(self.blocks)), state))
        row = SlideState(slide_id=name, path=name, status="done") if stage == "finish" else None
        return Outcome(self.sleep_s, patches=400, tissue_mm2=1.0, row=row)


class Watch:
    """Counts blocks and tells of memory."""

    def __init__(self, stop_after: int) -> None:
        self.done, self.blocks, self.stop_after = 0, 0, stop_after
        self.first_block_s: float | None = None
        self.start_s = time.perf_counter()

    def __call__(self, event: Event) -> None:
        """Take note."""
        if event.kind == "block":
            self.blocks += 1
            if self.first_block_s is None:
                self.first_block_s = time.perf_counter() - self.start_s
        self.done += event.kind == "done"
        if event.kind == "done" and self.done % 10 == 0:
            gc.collect()
            sys.stdout.write(f"{self.done} slides, {self.blocks} blocks, {memory_mb():.0f} MB\n")
            sys.stdout.flush()

    def stopped(self) -> bool:
        """Whether enough was run."""
        return self.done >= self.stop_after


def memory_mb() -> float:
    """Return this process's resident memory."""
    return float(psutil.Process().memory_info().rss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("slides", 5000), ("blocks", 400), ("workers", 64), ("run", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sleep", type=float, default=0.2)
    a = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="simulation-"))

    def job(record: SlideRecord) -> Job:
        return Job(record.slide, out / record.slide.slide_id, RunSettings(), out, "")

    with (
        dask.config.set(_DASK),
        LocalCluster(
            n_workers=a.workers, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Sleeper(a.blocks, a.sleep))
        ledger = Ledger(out)
        ledger.add_slides([SlideInput(f"s{k:05d}", Path(f"/s{k:05d}.svs")) for k in range(a.slides)])
        sys.stdout.write(f"{a.slides} slides entered, {memory_mb():.0f} MB\n")
        watch, cpu, wall = Watch(a.run), time.process_time(), time.perf_counter()
        Engine(client, ledger, InPlace(ledger.slides()), job, watch, watch.stopped).run()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        tasks = 2 * watch.blocks
        sys.stdout.write(
            f"{watch.blocks} blocks, each analysed and written, in {wall:.1f} s: {1000 * cpu / tasks:.2f} ms CPU a task; "
            f"workers busy {(tasks + 3 * watch.done) * a.sleep / a.workers / wall:.3f} of the time\n"
        )
        ledger.close()
        again = Watch(10**9)
        ledger = Ledger(out)
        ledger.reset("running")
        records = [r for r in ledger.slides() if r.status != "done"]
        Engine(client, ledger, InPlace(records), job, again, lambda: again.blocks > 0).run()
        sys.stdout.write(
            f"resumed with {len(records)} slides left: first block ended after {again.first_block_s:.2f} s\n"
        )
        ledger.close()


if __name__ == "__main__":
    main()
