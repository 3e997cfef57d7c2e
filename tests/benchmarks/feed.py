"""What one GPU could be fed on this machine, if the network took no time.

    python tests/benchmarks/feed.py [SLIDE] [--block 2048] [--workers 1 2] [--records FILE]

The process that runs the network for all workers is the real one, but its network hands out answers that were made before, by
patch. Workers analyse the slide's blocks; without SLIDE, a drawn slide's. Prints, for each number of workers, how many patches a
second they put through by the clock, and the processor time a patch of the workers and of the process that would hold the GPU. Then
the other stages, which any worker does; most of the last one's time does not grow with the slide.
"""

import argparse
import hashlib
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from common import run_as_worker

SERVE = "--serve"


def key_of(pixels: np.ndarray) -> str:
    """Return what tells a patch from others: every 17th pixel, so that this takes next to no time."""
    return hashlib.blake2b(pixels[::17, ::17].tobytes(), digest_size=16).hexdigest()


class Recorder:
    """Networks that note each answer."""

    def __init__(self, networks: Any) -> None:
        self._networks = networks
        self.device_type, self.precision = networks.device_type, networks.precision
        self.batch_size = networks.batch_size
        self.answers: dict[str, Any] = {}

    def scores(self, patches: Any, at_once: int | None = None) -> np.ndarray:
        return self._noted(patches, self._networks.scores(patches, at_once))

    def logits(self, crops: np.ndarray) -> np.ndarray:
        return self._noted(crops, self._networks.logits(crops))

    def _noted(self, asked: Any, answers: np.ndarray) -> np.ndarray:
        self.answers |= {key_of(a): answer for a, answer in zip(asked, answers, strict=True)}
        return answers


class NoTime:
    """Networks that answer from a record."""

    device_type, precision = "cpu", "fp32"

    def __init__(self, records: Path, batch_size: int) -> None:
        self.batch_size = batch_size
        with np.load(records) as data:
            self._answers = dict(data)

    def scores(self, patches: np.ndarray, at_once: int | None = None) -> np.ndarray:
        return np.stack([self._answers[key_of(p)] for p in patches])

    def logits(self, crops: np.ndarray) -> np.ndarray:
        return np.array([self._answers[key_of(c)] for c in crops])


def serve(records: Path, path: Path, batch_size: int, model: str) -> None:
    """Answer workers until the standard input ends; then tell the processor time of all."""
    import threading

    from wsi_minugan.minugan.networks.server import NetworkServer

    networks = NoTime(records, batch_size)
    server = NetworkServer(networks, model, path)
    begun = cpu_s()
    threading.Thread(target=server.serve, daemon=True).start()
    sys.stdin.read()
    sys.stdout.write(f"{cpu_s() - begun}\n")


def cpu_s() -> float:
    """Return the processor time of this process, all its threads included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def serving(records: Path, folder: Path, batch_size: int, model: str) -> Iterator[tuple[Path, Any]]:
    path = folder / "socket"
    call = [sys.executable, __file__, SERVE, str(records), str(path), str(batch_size), model]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not path.exists() and process.poll() is None:
            time.sleep(0.05)
        yield path, process
    path.unlink(missing_ok=True)


def analyse(job: Any, blocks: list[int], path: Path, ready: Any) -> tuple[float, int]:
    """Analyse some blocks, once all workers are ready; return the processor time and the number of patches."""
    from minugan_jobs.worker import WorkerState

    state = WorkerState(network=path)
    state.setup(None)
    state._predict(job, job.settings)
    ready.wait()
    begun = cpu_s()
    patches = state.run("analyse", job, blocks, "").patches
    return cpu_s() - begun, patches


def analysed(
    job: Any, path: Path, workers: int, blocks: int, meanwhile: AbstractContextManager[Any] | None = None
) -> tuple[int, float, float]:
    """Have so many workers analyse a slide's blocks; return the number of patches, the time (s) and the workers' processor time (s)."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(workers) as pool:
        ready = manager.Barrier(workers + 1)
        shares = [list(range(k, blocks, workers)) for k in range(workers)]
        done = [pool.apply_async(analyse, (job, share, path, ready)) for share in shares]
        ready.wait()
        begun = time.perf_counter()
        with meanwhile or nullcontext():
            found = [d.get() for d in done]
        wall_s = time.perf_counter() - begun
    return sum(n for _, n in found), wall_s, sum(s for s, _ in found)


def feed(job: Any, records: Path, folder: Path, workers: int, blocks: int) -> int:
    """Analyse a slide's blocks with so many workers, print how that went, and return the number of patches."""
    with serving(records, folder, job.settings.batch_size, digest_of(job)) as (path, process):
        patches, wall_s, workers_s = analysed(job, path, workers, blocks)
        network_s, _ = process.communicate()
    sys.stdout.write(
        f"{workers} workers: {patches / wall_s:6.0f} patches/s by the clock; a patch: "
        f"{1000 * workers_s / patches:.3f} ms of the workers', "
        f"{1000 * float(network_s) / patches:.3f} ms of the process with the GPU\n"
    )
    return patches


def planned(job: Any) -> int:
    """Plan a slide anew; return its number of blocks."""
    from minugan_jobs.worker import WorkerState

    shutil.rmtree(job.folder, ignore_errors=True)
    state = WorkerState()
    state.setup(None)
    return int(state.run("plan", job, (0,), "").planned.blocks)


def digest_of(job: Any) -> str:
    from wsi_minugan.minugan.bundle import load_bundle

    return load_bundle(job.model).digest


def record(job: Any, records: Path) -> None:
    """Analyse a slide with the real network, and note its answers."""
    from minugan_jobs.worker import WorkerState

    from wsi_minugan.minugan.bundle import load_bundle
    from wsi_minugan.minugan.networks.own import OwnNetworks
    from wsi_minugan.minugan.predictor import Predictor

    bundle = load_bundle(job.model)
    recorder = Recorder(OwnNetworks(bundle, "cpu", "fp32", 8, threads=1, compiled=False))
    state = WorkerState()
    state.setup(None)
    state._predict = lambda *_: Predictor(bundle, networks=recorder)
    state.run("analyse", job, tuple(range(planned(job))), "")
    np.savez(records, **recorder.answers)


def other_stages(job: Any, blocks: tuple[int, ...], patches: int) -> Iterator[str]:
    """Yield a line for each stage after analysis."""
    from minugan_jobs.worker import WorkerState

    state = WorkerState()
    state.setup(None)
    for stage in ("merge", "write", "finish"):
        begun = cpu_s()
        state.run(stage, job, blocks, "")
        took_s = cpu_s() - begun
        each = f"{took_s:.1f} s a slide" if stage == "finish" else f"{1000 * took_s / patches:.3f} ms a patch"
        yield f"{stage:8} {each}, of any worker\n"


def main() -> None:
    from minugan_jobs.tasks import Job

    from wsi_minugan.config import RunSettings
    from wsi_minugan.minugan.bundle import find_bundle
    from wsi_minugan.slides.inputs import SlideInput
    from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path, nargs="?")
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--records", type=Path, help="where the network's answers are kept for the next time")
    a = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="feed-"))
    slide = a.slide
    if slide is None:
        slide = folder / "drawn.tiff"
        write_slide(slide, SyntheticSlide(4096, 4096, seed=1, mitoses=40))
    settings = RunSettings(block_px=a.block, batch_size=a.batch, device="cpu", precision="fp32")
    job = Job(SlideInput("slide", slide), folder / "slide", settings, find_bundle("default"), "")
    records = a.records or folder / "records.npz"
    if not records.is_file():
        record(job, records)
    for workers in a.workers:
        blocks = planned(job)
        patches = feed(job, records, folder, workers, blocks)
    for line in other_stages(job, tuple(range(blocks)), patches):
        sys.stdout.write(line)
    shutil.rmtree(folder)


if __name__ == "__main__":
    if SERVE in sys.argv:
        given = sys.argv[sys.argv.index(SERVE) + 1 :]
        serve(Path(given[0]), Path(given[1]), int(given[2]), given[3])
    else:
        run_as_worker(main)
