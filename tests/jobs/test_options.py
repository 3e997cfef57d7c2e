"""Staging, tiles that are left out, cluster files and the command at the end."""

import http.server
import json
import os
import shlex
import shutil
import struct
import sys
import threading
from functools import partial
from pathlib import Path

import minugan_jobs.clusters.cluster
import minugan_jobs.run
import minugan_jobs.state.disk_space
import numpy as np
import pytest
import tifffile
import zarr
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from minugan_jobs.clusters.cluster import open_cluster, uses_gpu, worker_count
from minugan_jobs.clusters.cluster_file import load_cluster, start_cluster
from minugan_jobs.run import failures, run_batch
from minugan_jobs.staging import StagedCopies, open_staging
from minugan_jobs.state.disk_space import check_space, space_warning
from minugan_jobs.state.ledger import SlideRecord
from minugan_jobs.worker import WorkerState

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import ClusterError, InputError, OutputError, SettingsError
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

ROOT = Path(__file__).parents[2]


def records(folder: Path, sizes: list[int]) -> list[SlideRecord]:
    found = []
    for k, size in enumerate(sizes):
        path = folder / f"s{k}.svs"
        path.write_bytes(bytes([k]) * size)
        found.append(SlideRecord(SlideInput(f"s{k}", path), "pending", "", 0, ""))
    return found


def taken(staged: StagedCopies) -> SlideRecord | None:
    """Return the next slide, waiting for its copy a while."""
    for _ in range(100):
        found = staged.take()
        if found is not None:
            assert not found.error
            return found.record
        threading.Event().wait(0.02)
    return None


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_staging_hands_out_every_slide_in_order_within_its_bound(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stage")
    with open_staging(records(folder, sizes), folder / "copies", "run", 150 / 1e9) as staged:
        for k, size in enumerate(sizes):
            record = taken(staged)
            assert record is not None
            assert record.slide.slide_id == f"s{k}"
            assert record.slide.path.read_bytes() == bytes([k]) * size
            there = [p for p in (folder / "copies").rglob("*.svs") if p.is_file()]
            assert len(there) == 1 or sum(p.stat().st_size for p in there) <= 150
            staged.release(f"s{k}")
            assert not record.slide.path.exists()
        assert staged.exhausted
    assert not list((folder / "copies").iterdir())


def test_a_slide_that_cannot_be_copied_is_told_and_the_next_one_comes(tmp_path: Path) -> None:
    batch = records(tmp_path, [5, 5])
    (tmp_path / "s0.svs").unlink()
    with open_staging(batch, tmp_path / "copies", "run", 1) as staged:
        while (first := staged.take()) is None:
            pass
        assert "cannot be copied" in first.error
        assert taken(staged) is not None


def test_a_source_that_does_not_answer_is_given_up_and_the_next_one_comes(tmp_path: Path) -> None:
    batch = records(tmp_path, [5, 5])
    (tmp_path / "s0.svs").unlink()
    os.mkfifo(tmp_path / "s0.svs")  # opening it waits for a writer that never comes
    with open_staging(batch, tmp_path / "copies", "run", 1, stall_s=0.2) as staged:
        while (first := staged.take()) is None:
            pass
        assert "did not answer" in first.error
        assert taken(staged) is not None
    os.close(os.open(tmp_path / "s0.svs", os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.slow
def test_a_slide_on_a_web_server_is_staged_computed_and_removed(
    tmp_path: Path, slide: Path, finished: Path, run_command
) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(slide.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/synthetic%20slide.tiff"
    out = tmp_path / "o"
    refused = run_command("run", url, "-o", out)
    assert refused.returncode == 2
    assert "--stage-dir" in refused.stderr
    done = run_command("run", url, "-o", out, "--stage-dir", tmp_path / "stage", "--block", "512")
    assert done.returncode == 0, done.stderr
    assert not [p for p in (tmp_path / "stage").rglob("*") if p.is_file()]
    for name in ("count.json", "mitoses.geojson"):
        assert (out / "synthetic slide" / name).read_bytes() == (
            finished / "synthetic slide" / name
        ).read_bytes()
    missing = run_command("run", url + "x", "-o", tmp_path / "p", "--stage-dir", tmp_path / "stage")
    assert missing.returncode == 1
    assert "cannot be copied" in (tmp_path / "p" / "slides.csv").read_text()
    server.shutdown()


@pytest.fixture(scope="module")
def holed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, int, int, int]]:
    """Return a slide with one tile inside the tissue that does not decode, and where (top, left, bottom, right)."""
    path = tmp_path_factory.mktemp("holed") / "holed.tiff"
    write_slide(path, SyntheticSlide(1500, 1300, seed=3, mitoses=8))
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        across = -(-page.imagewidth // page.tilewidth)
        index = (page.imagelength // 2 // page.tilelength) * across + page.imagewidth // 2 // page.tilewidth
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        row, column = divmod(index, across)
        box = (row * page.tilelength, column * page.tilewidth)
        box = (*box, box[0] + page.tilelength, box[1] + page.tilewidth)
    with path.open("r+b") as f:
        f.seek(offset)
        f.write(struct.pack("B", 0) * count)
    return path, box


@pytest.mark.slow
def test_a_tile_that_does_not_decode_is_left_out_where_that_is_allowed(
    tmp_path: Path, holed: tuple[Path, tuple[int, int, int, int]], run_command
) -> None:
    path, (top, left, bottom, right) = holed
    strict = run_command("run", path, "-o", tmp_path / "strict")
    assert strict.returncode == 1
    sides = {}
    for block in ("512", "1024"):
        out = tmp_path / block
        done = run_command("run", path, "-o", out, "--tolerate-tiles", "1", "--block", block)
        assert done.returncode == 0, done.stderr
        coverage = np.asarray(zarr.open_array(out / "holed/masks.zarr/coverage/0", mode="r"))
        assert not coverage[top:bottom, left:right].any()
        assert coverage.any()
        manifest = json.loads((out / "holed" / "manifest.json").read_text())
        assert manifest["tiles_not_analysed"] == 1
        assert manifest["warnings"][0].startswith("1 tile does not decode and was not analysed")
        analysed_mm2 = coverage.sum() * 0.25**2 / 1e6  # with the margin around tissue
        assert 0.8 * analysed_mm2 < manifest["tissue_mm2"] < analysed_mm2
        sides[block] = (out / "holed" / "count.json").read_bytes()
    assert sides["512"] == sides["1024"]


@pytest.mark.parametrize(
    "text", ["kind: kubernetes", "kind: slurm\nworkers: 3", "- a", "kind: [", "kind: ssh\nextra: 1"]
)
def test_a_cluster_file_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingsError, match="cluster file"):
        load_cluster(tmp_path / "c.yaml")


@pytest.mark.parametrize("file", sorted((ROOT / "jobs" / "clusters").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_ready_cluster_files_fit(file: Path) -> None:
    described = load_cluster(file)
    if described.kind == "slurm":
        from dask_jobqueue import SLURMCluster

        options = described.options | {"interface": "lo"}
        with SLURMCluster(**options) as cluster:
            script = cluster.job_script()
        assert "--nthreads 1" in script
        assert f"#SBATCH -p {options['queue']}" in script


def test_a_cluster_option_that_there_is_not_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("kind: slurm\noptions: {cores: 1, memory: 1GB, colour: red}")
    with pytest.raises(SettingsError, match="colour"):
        start_cluster(load_cluster(tmp_path / "c.yaml"), {})


@pytest.mark.slow
def test_the_command_at_the_end_gets_folder_and_tally_and_no_shell(tmp_path: Path, run_command) -> None:
    path = tmp_path / "s.tiff"
    write_slide(path, SyntheticSlide(300, 300, mitoses=1))
    script = tmp_path / "tell.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(os.environ['WSI_MINUGAN_OUT'], 'told').write_text(\n"
        "    os.environ['WSI_MINUGAN_DONE'] + os.environ['WSI_MINUGAN_FAILED'] + ' '.join(sys.argv[1:]))\n"
    )
    command = f"{sys.executable} {script} ; rm -rf x"
    done = run_command("run", path, "-o", tmp_path / "o", "--on-finish", command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "told").read_text() == "10; rm -rf x"
    assert "ended with status 0" in done.stderr
    nothing = run_command("run", path, "-o", tmp_path / "o", "--on-finish", "/no/such/program")
    assert nothing.returncode == 0
    assert "cannot be run" in nothing.stderr


def test_the_command_at_the_end_is_also_told_of_a_run_that_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ClusterError("The Dask scheduler is gone.")

    monkeypatch.setattr(minugan_jobs.run, "open_cluster", gone)
    out, told = tmp_path / "o", tmp_path / "told"
    code = f"import os, pathlib; pathlib.Path({str(told)!r}).write_text(os.environ['WSI_MINUGAN_STATUS'])"
    settings = RunSettings(on_finish=shlex.join([sys.executable, "-c", code]))
    with pytest.raises(ClusterError):
        run_batch([SlideInput("s", tmp_path / "s.svs")], out, settings, lambda event: None)
    assert told.read_text() == "1"
    assert "The Dask scheduler is gone." in (out / "log.jsonl").read_text()


@pytest.mark.parametrize("address", ["foo", "tcp://host", "tcp://host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with (
        pytest.raises(InputError, match="no address"),
        open_cluster(RunSettings(scheduler=address), WorkerState()),
    ):
        pass


def test_one_process_has_the_gpu_that_auto_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minugan_jobs.clusters.cluster, "has_gpu", lambda: True)
    assert worker_count(RunSettings()) == 1
    assert worker_count(RunSettings(workers=3)) == 3
    assert worker_count(RunSettings(device="cpu")) >= 1
    assert uses_gpu(RunSettings())
    assert not uses_gpu(RunSettings(device="cpu"))


def test_a_slide_that_will_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="GB are needed"):
        check_space(tmp_path, 1e9)
    check_space(tmp_path, 0.01)


def test_a_disk_that_fills_up_fails_the_slides_and_the_ledger_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.tiff"
    write_slide(path, SyntheticSlide(300, 300, mitoses=1))
    monkeypatch.setattr(minugan_jobs.state.disk_space, "KEPT_FREE_BYTES", 10**18)
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster, Client(cluster):
        run = RunSettings(scheduler=cluster.scheduler_address)
        result = run_batch([SlideInput("s", path)], tmp_path / "my results", run, lambda event: None)
    assert result.exit_status == 1
    assert "GB are needed" in failures(result)[0][1]
    assert "GB are needed" in (tmp_path / "my results" / "slides.csv").read_text()
    # The command is there as it can be typed.
    assert failures(result)[0][1].endswith(f"wsi-minugan retry '{tmp_path / 'my results'}'")


def test_a_batch_that_will_not_fit_is_told(tmp_path: Path) -> None:
    with (tmp_path / "large.svs").open("wb") as f:
        f.truncate(shutil.disk_usage(tmp_path).free + 2**30)  # sparse: it takes no room
    assert "free" in (space_warning(tmp_path, [tmp_path / "large.svs"], StallGuard()) or "")
    assert space_warning(tmp_path, [tmp_path / "missing.svs"], StallGuard()) is None
    (tmp_path / "large").mkdir()
    (tmp_path / "large.svs").rename(tmp_path / "large" / "Data0000.dat")
    (tmp_path / "large.mrxs").touch()
    assert "free" in (space_warning(tmp_path, [tmp_path / "large.mrxs"], StallGuard()) or "")
