"""Finished work is never destroyed, what the user put beside it is never touched, and what is sealed is whole."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import minugan_jobs.worker
import pytest
from minugan_jobs.state.ledger import Ledger
from minugan_jobs.state.output_folder import name_slides, remove_results
from minugan_jobs.tasks import Job, Planned
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import NoTissueError, OutputError
from wsi_minugan.minugan.bundle import BUNDLED
from wsi_minugan.outputs.manifest import MANIFEST, is_whole, read_manifest, verify
from wsi_minugan.pipeline.own_files import own_files, remove_own
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "s.tiff"
    write_slide(path, SyntheticSlide(700, 600, seed=1, mitoses=2))
    return path


@pytest.fixture(scope="module")
def before_finish(slide_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, str]:
    """Return a folder with a slide's work as far as its last stage, the job, and the work's key."""
    out = tmp_path_factory.mktemp("work")
    job = job_in(slide_file, out)
    worker_state = WorkerState()
    planned = worker_state.run("plan", job, (0,), "").planned
    for stage in ("analyse", "write"):
        if stage == "write":
            worker_state.run("merge", job, (0,), "")
        for k in planned.order:
            worker_state.run(stage, job, (k,), "")
    return out, job, planned.key


def job_in(slide_file: Path, out: Path, **settings: object) -> Job:
    chosen = RunSettings(**{"block_px": 512, **settings})
    return Job(SlideInput("s", slide_file), out / "s", chosen, BUNDLED / "default", "")


@pytest.fixture
def work(before_finish: tuple[Path, Job, str], tmp_path: Path) -> tuple[Job, str]:
    """Return a copy of the work before its last stage."""
    out, job, key = before_finish
    shutil.copytree(out, tmp_path / "out")
    return replace(job, folder=tmp_path / "out" / "s"), key


@pytest.fixture
def done(work: tuple[Job, str]) -> tuple[Job, str]:
    """Return a finished slide's job, and its work's key."""
    job, key = work
    WorkerState().run("finish", job, (0,), "")
    assert verify(job.folder) == []
    return job, key


def planned(stage: str, job: Job, key: str) -> Planned:
    found = WorkerState().run(stage, job, (0,), key).planned
    assert found is not None
    return found


def as_on(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Have this process settle on an arithmetic, as on another kind of processor."""
    monkeypatch.setattr(minugan_jobs.worker, "settle_precision", lambda wanted, device: precision)


@pytest.mark.parametrize("stage", ["check", "plan"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_finished_results_stay_whatever_processor_looks_at_them(
    done: tuple[Job, str], monkeypatch: pytest.MonkeyPatch, stage: str, precision: str
) -> None:
    job, key = done
    sealed = (job.folder / MANIFEST).read_bytes()
    as_on(monkeypatch, precision)
    assert planned(stage, job, key).state == "done"
    assert (job.folder / MANIFEST).read_bytes() == sealed


def test_another_arithmetic_that_is_asked_for_is_done(done: tuple[Job, str]) -> None:
    job, key = done
    made_in = read_manifest(job.folder).settings["precision"]
    other = {"fp32": "bf16", "bf16": "fp32"}[made_in]
    for precision, state in ((made_in, "done"), (other, "new")):
        wanted = replace(job, settings=job.settings.model_copy(update={"precision": precision}))
        assert planned("check", wanted, key).state == state


def test_work_begun_on_another_kind_of_processor_is_gone_on_with(
    work: tuple[Job, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, key = work
    for precision in ("fp32", "bf16"):
        as_on(monkeypatch, precision)
        assert planned("plan", job, key).state == "resumed"


@pytest.mark.parametrize("stage", ["check", "plan"])
def test_another_block_size_alone_does_not_redo_a_finished_slide(done: tuple[Job, str], stage: str) -> None:
    job, key = done
    other = replace(job, settings=job.settings.model_copy(update={"block_px": 1024}))
    assert planned(stage, other, key).state == "done"
    assert verify(job.folder) == []


def test_unfinished_work_of_another_block_size_is_not_gone_on_with(work: tuple[Job, str]) -> None:
    job, key = work
    other = replace(job, settings=job.settings.model_copy(update={"block_px": 1024}))
    assert planned("plan", other, key).state == "new"


USERS = (
    "corrected.geojson",
    "notes/why.txt",
    "masks.zarr/labels/corrected/zarr.json",
    "slide.partial",
    ".hidden",
)


def test_files_of_the_user_outlive_the_results_they_lie_beside(done: tuple[Job, str]) -> None:
    job, key = done
    for name in USERS:
        (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (job.folder / name).write_text(f"mine: {name}")
    other = replace(job, settings=job.settings.model_copy(update={"stride_px": 256}))
    worker_state = WorkerState()
    plan = worker_state.run("plan", other, (0,), key).planned
    assert plan.state == "new"
    for stage in ("analyse", "merge", "write", "finish"):
        for k in plan.order if stage in {"analyse", "write"} else (0,):
            worker_state.run(stage, other, (k,), "")
    for name in USERS:
        assert (job.folder / name).read_text() == f"mine: {name}"
        assert name not in read_manifest(job.folder).files
    remove_own(job.folder)
    assert {p.relative_to(job.folder).as_posix() for p in job.folder.rglob("*") if p.is_file()} == set(USERS)


def test_a_correction_of_the_result_file_itself_is_kept_and_told(done: tuple[Job, str]) -> None:
    job, key = done
    path = job.folder / "mitoses.geojson"
    corrected = json.loads(path.read_text()) | {"note": "one was no mitosis"}
    path.write_text(json.dumps(corrected))
    found = planned("plan", job, key)
    assert found.state == "new"
    assert "kept as mitoses-corrected-1.geojson" in found.note
    assert json.loads((job.folder / "mitoses-corrected-1.geojson").read_text()) == corrected


def test_overwrite_removes_this_programs_files_alone(done: tuple[Job, str]) -> None:
    job, _ = done
    out = job.folder.parent
    ledger = Ledger(out)
    ledger.add_slides([job.slide, SlideInput("t", Path("/t.svs"))])
    ledger.close()
    (out / "t").mkdir()
    (job.folder / "corrected.geojson").write_text("mine")
    told: list[str] = []
    emptied = remove_results(out, told.append)
    assert [p.relative_to(out).as_posix() for p in out.rglob("*")] == ["s", "s/corrected.geojson"]
    assert name_slides(out, [job.slide], False, emptied)[0].slide_id == "s"
    assert told == []


def test_results_are_not_given_up_for_a_plan_that_fails(
    done: tuple[Job, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, key = done

    def no_tissue(*_: object) -> None:
        raise NoTissueError("No tissue was found.")

    monkeypatch.setattr(minugan_jobs.worker, "plan_slide", no_tissue)
    other = replace(job, settings=job.settings.model_copy(update={"stride_px": 256}))
    with pytest.raises(NoTissueError):
        planned("plan", other, key)
    assert verify(job.folder) == []


def shards_of(folder: Path, name: str) -> list[Path]:
    found = sorted(p for p in (folder / "masks.zarr" / name).rglob("c/*/*") if p.is_file())
    assert found, name
    return found


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "no bytes": lambda p: p.write_bytes(b""),
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:-20]),
    "changed": lambda p: p.write_bytes(bytes(reversed(p.read_bytes()))),
}


@pytest.mark.parametrize("name", ["coverage/0", "mitosis_score/0", "labels/classes/0", "labels/nuclei/0"])
@pytest.mark.parametrize("damage", list(DAMAGE))
def test_masks_that_are_not_as_they_were_written_are_not_sealed(
    work: tuple[Job, str], name: str, damage: str
) -> None:
    job, key = work
    DAMAGE[damage](shards_of(job.folder, name)[0])
    with pytest.raises(OutputError, match="not as they were written"):
        WorkerState().run("finish", job, (0,), "")
    assert not (job.folder / MANIFEST).exists()
    assert planned("plan", job, key).state == "new"  # so a retry makes it good


def test_a_mask_file_that_no_block_wrote_is_not_sealed(work: tuple[Job, str]) -> None:
    job, _ = work
    shard = shards_of(job.folder, "labels/nuclei/0")[0]
    shutil.copy(shard, shard.with_name("7"))
    with pytest.raises(OutputError, match="not as they were written"):
        WorkerState().run("finish", job, (0,), "")


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_work_that_goes_on_does_again_just_the_blocks_whose_files_are_lost(
    work: tuple[Job, str], damage: str
) -> None:
    job, key = work
    DAMAGE[damage](shards_of(job.folder, "coverage/0")[0])
    DAMAGE[damage](next(iter((job.folder / ".work").glob("*/merged-mitoses.npz"))))
    found = planned("plan", job, key)
    assert found.state == "resumed"
    assert len(found.whole["analyse"]) == len(found.order) - 1
    assert (found.whole["merge"], set(found.whole["write"])) == ((), set(found.order))


def test_a_finished_slide_with_a_mask_of_no_bytes_is_done_again(done: tuple[Job, str]) -> None:
    job, key = done
    shards_of(job.folder, "labels/classes/0")[0].write_bytes(b"")
    assert not is_whole(job.folder)
    assert planned("check", job, key).state == "new"


def test_every_file_of_a_finished_slide_is_one_of_ours(finished: Path) -> None:
    folder = next(finished.glob("*/manifest.json")).parent
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(own_files(folder)) | {MANIFEST} == there == set(read_manifest(folder).files) | {MANIFEST}


@pytest.mark.parametrize("state", ["no masks", "no coverage", "a damaged array", "a lost shard"])
def test_counting_in_a_folder_without_masks_is_a_sentence_and_makes_none(
    done: tuple[Job, str], run_command: Run, state: str
) -> None:
    folder = done[0].folder
    lost = folder / "masks.zarr" / ("" if state == "no masks" else "coverage")
    if state == "a damaged array":
        (lost / "0" / "zarr.json").write_text("{")
    elif state == "a lost shard":
        next(p for p in sorted((lost / "0" / "c").rglob("*")) if p.is_file()).unlink()
    else:
        shutil.rmtree(lost)
    before = sorted(folder.rglob("*"))
    told = run_command("count", folder)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert "cannot be counted as it was written (masks.zarr/coverage" in told.stderr, told.stderr
    assert "Run the slide again" in told.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_a_run_with_other_blocks_leaves_the_results_and_a_correction_alone(
    slide_file: Path, tmp_path: Path, run_command: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    out = tmp_path / "o"
    first = run_command("run", slide_file, "-o", out, "--block", "512")
    assert first.returncode == 0, first.stderr
    (out / "s" / "corrected.geojson").write_text("mine")
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (out / "s").rglob("*") if p.is_file()}
    assert run_command("run", slide_file, "-o", out, "--block", "1024").returncode == 0
    after = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in (out / "s").rglob("*") if p.is_file()}
    assert after == before
