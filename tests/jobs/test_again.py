"""What the same command does a second time: what is done stays done, and what was touched is done again, and nothing else."""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import minugan_jobs.run
import numpy as np
import pytest
from distributed import LocalCluster
from minugan_jobs.run import _to_do, run_batch
from minugan_jobs.scheduler import Event
from minugan_jobs.state.ledger import SlideRecord
from minugan_jobs.tasks import Job, Stage
from minugan_jobs.worker import WorkerState

import wsi_minugan.slides.files
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import OutputError, SlideUnreadableError
from wsi_minugan.minugan.bundle import BUNDLED
from wsi_minugan.outputs import atomic, manifest
from wsi_minugan.slides.files import file_state, fingerprint
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small slides."""
    folder = tmp_path_factory.mktemp("slides")
    for k in range(2):
        write_slide(folder / f"s{k}.tiff", SyntheticSlide(700, 600, seed=k, mitoses=2))
    return folder


def states(out: Path) -> dict[str, str]:
    import csv

    with (out / "slides.csv").open(newline="", encoding="utf-8-sig") as f:
        return {r["slide_id"]: r["status"] for r in csv.DictReader(f)}


def written(folder: Path) -> dict[str, tuple[int, str]]:
    """Return when each file was written, and its digest."""
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in folder.rglob("*")
        if p.is_file()
    }


def jobs_of_two_settings(slides: Path, out: Path) -> tuple[Job, Job]:
    """Return a slide's work with two strides, in one folder."""
    first, second = (
        Job(
            SlideInput("s0", slides / "s0.tiff"),
            out / "s0",
            RunSettings(stride_px=s),
            BUNDLED / "default",
            "",
        )
        for s in (192, 256)
    )
    return first, second


def test_a_plan_of_other_settings_is_not_gone_on_with(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_state, load = WorkerState(), np.load
    narrow, wide = jobs_of_two_settings(slides, tmp_path)
    key = worker_state.run("plan", narrow, (0,), "").planned.key
    with monkeypatch.context() as patched:
        opened: list[object] = []
        patched.setattr(np, "load", lambda *a, **k: (opened.append(a), load(*a, **k))[1])
        assert worker_state.run("plan", narrow, (0,), key).planned.state == "resumed"
        assert len(opened) == 1
    worker_state.run("plan", wide, (0,), key)
    # Here a kill comes, and the ledger still names the first key.
    assert worker_state.run("plan", narrow, (0,), key).planned.state == "new"


@pytest.mark.parametrize("stage", ["analyse", "merge", "write", "finish"])
def test_what_a_stopped_run_still_does_never_reaches_the_results_of_the_next_one(
    slides: Path, tmp_path: Path, stage: Stage
) -> None:
    # A worker of somebody's own scheduler is not ended with the run: its block goes on.
    late, worker_state = WorkerState(), WorkerState()
    before, after = jobs_of_two_settings(slides, tmp_path)
    stages: tuple[Stage, ...] = ("plan", "analyse", "merge", "write", "finish")
    for earlier in stages[: stages.index(stage)]:
        late.run(earlier, before, (0,), "")
    late._plan(before)
    worker_state.run("plan", after, (0,), "")
    begun = written(tmp_path / "s0")
    with pytest.raises(OutputError):
        late.run(stage, before, (0,), "")
    assert written(tmp_path / "s0") == begun


@pytest.mark.slow
def test_finished_slides_stay_done_when_their_files_are_gone_or_other_slides_are_retried(
    slides: Path, tmp_path: Path, run_command: Run
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(slides, folder)
    (folder / "bad.tiff").write_bytes((folder / "s0.tiff").read_bytes()[:3000])
    assert run_command("run", folder, "-o", out).returncode == 1
    assert run_command("run", folder / "s1.tiff", "-o", out, "--stride", "256").returncode == 0
    before = {k: written(out / k) for k in ("s0", "s1")}
    (folder / "s0.tiff").rename(tmp_path / "archived.tiff")
    assert run_command("retry", out).returncode == 1
    assert json.loads((out / "run.json").read_text())["settings"]["stride_px"] == 192
    assert states(out) == {"bad": "failed", "s0": "done", "s1": "done"}
    shutil.copy(slides / "s0.tiff", folder / "bad.tiff")
    again = run_command("run", folder / "bad.tiff", folder / "s0.tiff", "-o", out)
    assert again.returncode == 0, again.stderr
    assert "kept    s0" in again.stderr
    assert states(out) == {"bad": "done", "s0": "done", "s1": "done"}
    assert {k: written(out / k) for k in ("s0", "s1")} == before
    done = run_command("retry", out)
    assert (done.returncode, "nothing to retry" in done.stdout) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_a_slide_whose_results_are_damaged_is_done_again_and_no_other(
    slides: Path, tmp_path: Path, run_command: Run, damage: str
) -> None:
    out = tmp_path / "out"
    assert run_command("run", slides, "-o", out).returncode == 0
    before = {k: written(out / k) for k in ("s0", "s1")}
    path = out / "s0" / "count.json"
    path.unlink() if damage == "removed" else path.write_text("{}")
    assert run_command("run", slides, "-o", out).returncode == 0
    assert run_command("verify", out).returncode == 0
    assert written(out / "s1") == before["s1"]
    assert {k: v[1] for k, v in written(out / "s0").items()} == {k: v[1] for k, v in before["s0"].items()}


def test_a_slide_changed_anywhere_has_another_fingerprint(tmp_path: Path) -> None:
    path, data = tmp_path / "s.tiff", bytearray(3_000_000)
    path.write_bytes(data)
    before = fingerprint(path)
    data[1_234_567] = 1
    path.write_bytes(data)
    assert fingerprint(path) != before


def test_a_slow_line_is_not_taken_for_one_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "s.tiff", wsi_minugan.slides.files._sample
    path.write_bytes(bytes(100))
    before = fingerprint(path)
    monkeypatch.setattr(wsi_minugan.slides.files, "_sample", lambda *a: (time.sleep(0.02), read(*a))[1])
    assert fingerprint(path, stall_s=0.8) == before  # more than that in all
    monkeypatch.setattr(wsi_minugan.slides.files, "_sample", lambda *a: time.sleep(2))
    with pytest.raises(SlideUnreadableError, match=r"did not answer for 0\.2 s"):
        fingerprint(path, stall_s=0.2)


SERIES = b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI" + (6).to_bytes(2, "little")


@pytest.mark.parametrize(
    ("name", "other"),
    [("a.mrxs", "a/Data0001.dat"), ("s/a.dcm", "s/b.dcm"), ("a.vms", "a(1,0).jpg"), ("a.zarr", "a.zarr/0/c")],
)
def test_a_slide_whose_other_files_were_completed_is_another_one_and_is_taken_again(
    tmp_path: Path, name: str, other: str
) -> None:
    path, beside = tmp_path / name, tmp_path / other
    beside.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".zarr":
        path.write_bytes(SERIES + b"1.2.3\0")
    beside.write_bytes(SERIES + b"1.2.3\0")
    key, seen = fingerprint(path), file_state(path, StallGuard())
    failed = SlideRecord(SlideInput("a", path), "failed", "", 1, "", "request" + str(None), seen)
    assert not _to_do(failed, "request", False, StallGuard())
    with beside.open("ab") as f:
        f.write(b"the rest")
    assert fingerprint(path) != key
    assert _to_do(failed, "request", False, StallGuard())


def test_a_slide_is_the_same_when_another_series_comes_into_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(SERIES + b"1.2.3\0")
    before = fingerprint(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(SERIES + b"1.2.4\0")
    assert fingerprint(tmp_path / "a.dcm") == before


def test_a_batch_that_goes_on_does_not_wait_for_its_report_and_looks_only_at_what_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    write = minugan_jobs.run.write_report
    monkeypatch.setattr(minugan_jobs.run, "write_report", lambda *a: (happened.append("report"), write(*a)))
    slides = []
    for name in "ab":
        (tmp_path / f"{name}.svs").write_text("no slide")
        slides.append(SlideInput(name, tmp_path / f"{name}.svs"))

    def note(event: Event) -> None:
        happened.append(f"{event.slide_id} {event.kind}")

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        run = RunSettings(scheduler=cluster.scheduler_address)
        for only in ({slides[0].source}, {slides[1].source}):
            result = run_batch(slides, tmp_path / "o", run, note, retry=True, only=only)
            assert len(result.slides) == 1
    first, second = ["a started", "a failed", "report"], ["b started", "b failed", "report"]
    assert happened == ["report", *first, *second]


def test_a_failed_slide_whose_drive_hangs_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    monkeypatch.setattr("wsi_minugan.slides.files.files_of", lambda path: back.wait(20) and [])
    slides = [SlideInput(f"s{k}", tmp_path / f"s{k}.svs") for k in range(3)]
    guard, begin = StallGuard(0.2), time.monotonic()
    assert {file_state(s.path, guard) for s in slides} == {""}
    assert time.monotonic() - begin < 5
    back.set()


def test_a_finished_slide_from_elsewhere_is_not_fetched_again() -> None:
    slide = SlideInput("s", Path("s.svs"), None, "https://host/s.svs")
    record = SlideRecord(slide, "done", "key", 1, "", "request" + str(None))
    assert not _to_do(record, "request", False, StallGuard())
    assert _to_do(record, "other", False, StallGuard())


def test_all_of_a_slide_is_on_the_disk_before_it_is_sealed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "slide"
    shutil.copytree(next(finished.glob("*/manifest.json")).parent, folder)
    synced: list[Path] = []
    monkeypatch.setattr(manifest, "sync", synced.append)
    monkeypatch.setattr(atomic, "sync", synced.append)
    written = manifest.read_manifest(folder)
    manifest.write_manifest(folder, written)
    last = next(k for k, p in enumerate(synced) if manifest.MANIFEST in p.name)
    first = set(synced[:last])
    assert first >= {folder / name for name in written.files}
    assert first >= {folder, folder / "masks.zarr"}
    assert synced[-1] == folder
