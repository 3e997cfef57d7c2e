"""Copies of slides: what is copied, how much lies there, and what the user reads of it."""

import contextlib
import time
from pathlib import Path

import minugan_jobs.staging
import pytest
from distributed import LocalCluster
from minugan_jobs.run import failures, run_batch
from minugan_jobs.scheduler import Event
from minugan_jobs.staging import StagedSlide, Staging, open_staging
from minugan_jobs.state.disk_space import KEPT_FREE_BYTES
from minugan_jobs.state.ledger import SlideRecord
from minugan_jobs.tasks import Job
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import OutputError, SlideError
from wsi_minugan.minugan.bundle import BUNDLED
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide


def record(path: Path, status: str = "pending", size: int = 100) -> SlideRecord:
    path.write_bytes(b"x" * size)
    return SlideRecord(SlideInput(path.stem, path), status, "", 0, "")


def taken(staging: Staging) -> StagedSlide:
    until = time.monotonic() + 120
    while (staged := staging.take()) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return staged


def open_names() -> list[str]:
    """Return the files that this process has open, removed ones too."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            names.append(str(entry.readlink()))
    return names


def test_a_finished_slide_is_not_copied_to_be_looked_at_again(tmp_path: Path) -> None:
    done = record(tmp_path / "s.svs", "done")
    with open_staging([done], tmp_path / "copies", "run", 1) as staging:
        assert taken(staging) == StagedSlide(done)
        assert not [p for p in (tmp_path / "copies").rglob("*") if p.is_file()]


def test_a_local_slide_may_be_named_as_it_likes(tmp_path: Path) -> None:
    odd = record(tmp_path / "a::b [1]*.svs")  # "::" chains file systems where addresses are meant
    with open_staging([odd], tmp_path / "copies", "run", 1) as staging:
        found = taken(staging)
        assert found.error == ""
        assert found.record.slide.path.read_bytes() == b"x" * 100


def test_no_more_is_copied_than_the_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minugan_jobs.staging, "_emptied", lambda folder: KEPT_FREE_BYTES + 150)
    batch = [record(tmp_path / f"s{k}.svs") for k in range(2)]
    with open_staging(batch, tmp_path / "copies", "run", 200) as staging:
        first = taken(staging)
        time.sleep(0.2)
        assert staging.take() is None
        staging.release(first.record.slide.slide_id)
        assert taken(staging).record.slide.slide_id == "s1"


def test_a_folder_for_copies_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--stage-dir"), open_staging([], tmp_path / "file", "run", 1):
        pass


def test_a_slide_that_fails_as_a_copy_is_told_by_its_own_path_and_waits_for_a_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.svs").write_text("no slide")
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        run = RunSettings(scheduler=cluster.scheduler_address, stage_dir=Path("copies"))
        results = [
            run_batch([SlideInput("s", Path("s.svs"))], tmp_path / "o", run, events.append) for _ in range(2)
        ]
    for result in results:
        ((_, why),) = failures(result)
        assert why.startswith(f"{tmp_path / 's.svs'} cannot be opened as a slide")
        assert "copies" not in why
    assert [e.kind for e in events] == ["started", "failed"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_worker_closes_a_copy_that_was_removed(tmp_path: Path) -> None:
    worker_state = WorkerState()
    for k in range(2):
        write_slide(tmp_path / f"s{k}.tiff", SyntheticSlide(300, 300, seed=k, mitoses=1))
        settings = RunSettings(stage_dir=tmp_path)
        job = Job(
            SlideInput(f"s{k}", tmp_path / f"s{k}.tiff"),
            tmp_path / f"s{k}",
            settings,
            BUNDLED / "default",
            "",
        )
        worker_state.run("plan", job, (0,), "")
        assert [name for name in open_names() if name == str(job.slide.path)]
        (tmp_path / f"s{k}.tiff").unlink()
    with pytest.raises(SlideError):
        worker_state.run("check", job, (0,), "")
    assert not [name for name in open_names() if name.startswith(str(tmp_path))]
