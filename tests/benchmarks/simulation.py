"""What the engine itself costs: a real Dask cluster and a real ledger, with stages that only sleep.

    python tests/benchmarks/simulation.py [--slides 5000] [--blocks 400] [--workers 64] [--run 40] [--sleep 0.2]

Client, scheduler and workers (one thread each) are a process each. Enters all slides into the ledger, runs the first ones, prints memory
as it goes and the processor time of a block (its analysis and its writing) in each process; then opens the half-done batch again and
prints how long its first block takes to end.
"""

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dask
import psutil
from distributed import Client, Scheduler, Worker, WorkerPlugin
from minugan_jobs.clusters.cluster import _DASK
from minugan_jobs.clusters.worker_failures import tell_begun
from minugan_jobs.scheduler import Engine, Event
from minugan_jobs.staging import InPlace
from minugan_jobs.state.ledger import Ledger, SlideRecord
from minugan_jobs.tasks import Job, Outcome, Planned, Stage
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput


class Sleeper(WorkerPlugin):
    """Stages that only sleep."""

    name = WorkerState.name

    def __init__(self, blocks: int, sleep_s: float) -> None:
        self.blocks, self.sleep_s = blocks, sleep_s

    def setup(self, worker: Worker) -> None:
        """Take note of where this is."""
        self.worker = worker

    def run(self, stage: Stage, job: Job, blocks: Sequence[int], previous_key: str) -> Outcome:
        """Sleep as a stage, for as long as it has blocks."""
        tell_begun(self.worker)
        time.sleep(self.sleep_s * len(blocks))
        name = job.slide.slide_id
        if stage == "plan":
            state = "resumed" if previous_key else "new"
            return Outcome(self.sleep_s, planned=Planned(name, tuple(range(self.blocks)), state))
        row = SlideState(slide_id=name, path=name, status="done") if stage == "finish" else None
        return Outcome(self.sleep_s, patches=400, tissue_mm2=1.0, row=row)


class Watch:
    """Counts blocks and tells of memory."""

    def __init__(self, stop_after: int, processes: "Processes") -> None:
        self.done, self.blocks, self.stop_after = 0, 0, stop_after
        self.processes = processes
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
            say(f"{self.done} slides, {self.blocks} blocks, {self.processes.memory()}")

    def stopped(self) -> bool:
        """Whether enough was run."""
        return self.done >= self.stop_after


class Processes:
    """The three processes, by name."""

    def __init__(self, **pids: int | None) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    def memory(self) -> str:
        """Return how much memory each has, in words."""
        return ", ".join(f"{n} {p.memory_info().rss / 1e6:.0f} MB" for n, p in self._processes.items())

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time of each."""
        return {n: sum(p.cpu_times()[:2]) for n, p in self._processes.items()}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def serve(address: str, workers: int) -> None:
    """Be the scheduler, and tell where, or be the workers of one."""
    if not address:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            say(scheduler.address)
            await scheduler.finished()
        return
    started = await asyncio.gather(*(Worker(address, nthreads=1, memory_limit=0) for _ in range(workers)))
    say("ready")
    await asyncio.gather(*(w.finished() for w in started))


@contextmanager
def served(*arguments: str) -> Iterator[tuple[int, str]]:
    """Start this script as another process, and yield its number and what it said first."""
    call = [sys.executable, __file__, *arguments]
    quiet = os.environ | {"DASK_LOGGING__DISTRIBUTED": "critical"}
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=quiet) as process:
        try:
            assert process.stdout is not None
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


def run(a: argparse.Namespace, client: Client, processes: Processes) -> None:
    out = Path(tempfile.mkdtemp(prefix="simulation-"))

    def job(record: SlideRecord) -> Job:
        return Job(record.slide, out / record.slide.slide_id, RunSettings(), out, "")

    client.register_plugin(Sleeper(a.blocks, a.sleep))
    ledger = Ledger(out)
    ledger.add_slides([SlideInput(f"s{k:05d}", Path(f"/s{k:05d}.svs")) for k in range(a.slides)])
    say(f"{a.slides} slides entered, {processes.memory()}")
    watch, before, wall = Watch(a.run, processes), processes.cpu_s(), time.perf_counter()
    Engine(client, ledger, InPlace(ledger.slides()), job, watch, watch.stopped).run()
    after, wall = processes.cpu_s(), time.perf_counter() - wall
    each = ", ".join(f"{n} {1000 * (after[n] - before[n]) / watch.blocks:.2f} ms" for n in after)
    busy = (2 * watch.blocks + 3 * watch.done) * a.sleep / a.workers / wall
    say(
        f"{watch.blocks} blocks in {wall:.1f} s; processor time a block: {each}; workers busy {busy:.3f} of the time"
    )
    ledger.close()
    if a.run < a.slides:
        resume(out, client, job, processes)


def resume(out: Path, client: Client, job: Callable[[SlideRecord], Job], processes: Processes) -> None:
    """Open the half-done batch again, until its first block has ended."""
    again = Watch(10**9, processes)
    ledger = Ledger(out)
    ledger.reset("running")
    records = [r for r in ledger.slides() if r.status != "done"]
    Engine(client, ledger, InPlace(records), job, again, lambda: again.blocks > 0).run()
    say(f"resumed with {len(records)} slides left: first block ended after {again.first_block_s:.2f} s")
    ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in (("slides", 5000), ("blocks", 400), ("workers", 64), ("run", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sleep", type=float, default=0.2)
    parser.add_argument("--serve", metavar="ADDRESS", help=argparse.SUPPRESS)
    a = parser.parse_args()
    with dask.config.set(_DASK):
        if a.serve is not None:
            asyncio.run(serve(a.serve, a.workers))
            return
        with (
            served("--serve", "") as (scheduler, address),
            served("--serve", address, "--workers", str(a.workers)) as (workers, _),
            Client(address) as client,
        ):
            run(a, client, Processes(client=None, scheduler=scheduler, workers=workers))


if __name__ == "__main__":
    main()
