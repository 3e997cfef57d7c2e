"""The front door: quick to open, plain to read, and the engine behind any Dask scheduler."""

import csv
import json
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import shared_scheduler


def processor_s() -> float:
    """Return the processor time of all commands so far: what else the machine does is not their fault."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_comes_at_once(run_command, arguments: list[str]) -> None:
    def once() -> float:
        start = processor_s()
        assert run_command(*arguments).returncode == 0
        return processor_s() - start

    assert min(once() for _ in range(3)) < 0.5


WRITE_NUCLEI = """
from pathlib import Path
import numpy as np, shapely
from minugan_jobs import worker
from wsi_minugan.outputs.nuclei import write_nuclei
one = dict.fromkeys(("nucleus", "centroid_x_px", "centroid_y_px", "area_um2"), np.ones(1))
write_nuclei(Path("n.parquet"), [one | {"geometry": shapely.to_wkb([shapely.box(0, 0, 1, 1)])}], "s", 0.25)
"""


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import minugan_jobs.run", {"torch", "zarr", "scipy", "pyarrow", "pandas", "tifffile"}),
        (WRITE_NUCLEI, {"pandas", "geopandas", "matplotlib"}),
    ],
    ids=["a batch", "a worker that finishes a slide"],
)
def test_what_takes_long_to_load_is_not_loaded_where_it_is_not_needed(
    tmp_path: Path, code: str, unwanted: set[str]
) -> None:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert not unwanted & set(done.stdout.split())


def test_inspect_shows_what_a_run_would_see(run_command, slide: Path, tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        start = processor_s()
        done = run_command("inspect", slide, "--png", tmp_path / "tissue.png")
        times.append(processor_s() - start)
    assert done.returncode == 0, done.stderr
    for words in ("1500 x 1300 px", "0.2500 um/px (TIFF resolution tags)", "tissue"):
        assert words in done.stdout
    assert (tmp_path / "tissue.png").read_bytes().startswith(b"\x89PNG")
    assert min(times) < 2


def test_every_option_of_the_issue_is_there(run_command) -> None:
    text = run_command("run", "--help").stdout
    wanted = (
        "--model --device --workers --threads --batch-size --stride --mpp --tissue --no-tissue --hotspot-mm2 "
        "--hpf-diameter-mm --nuclei --no-nuclei --scheduler --config --dry-run --overwrite --quiet --pseudonyms --reader"
    )
    for option in wanted.split():
        assert option in text, option


def test_a_dry_run_writes_nothing(run_command, slide: Path, tmp_path: Path) -> None:
    done = run_command("run", slide, "-o", tmp_path / "o", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "patches" in done.stdout
    assert re.search(r"estimated from one batch .* \d+ ms a patch .* \d+ workers?\.", done.stdout, re.DOTALL)
    assert not (tmp_path / "o").exists()
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_dry_run_tells_bad_slides_as_a_run_does(run_command, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "a text.svs").write_text("no image")
    done = run_command(
        "run", slide, tmp_path / "a text.svs", "s3://bucket/far.svs", "-o", tmp_path / "o", "--dry-run"
    )
    assert done.returncode == 1
    assert "1 slide would fail" in done.stderr
    assert "cannot be opened as a slide" in re.sub(r"[\s│]+", " ", done.stderr)
    assert "far" in done.stdout
    assert "a text" not in done.stdout


def test_models_are_listed_shown_and_verified(run_command) -> None:
    assert "default" in run_command("models", "list").stdout
    assert json.loads(run_command("models", "show").stdout)["architecture"]["ngf"] == 8
    assert "digest" in run_command("models", "verify").stdout


def test_a_card_in_short_fits_a_terminal_and_tells_training_data_and_figures() -> None:
    from minugan_cli.inspection import card_in_short

    from wsi_minugan.minugan.bundle import find_bundle, load_bundle

    lines = card_in_short(load_bundle(find_bundle("default")).card)
    assert lines[0].startswith("minugan-13 ")
    assert sum(line.startswith("  - ") for line in lines) >= 5
    assert any(line.startswith("F1, full fields, all, val split: 0.") for line in lines)
    assert len(lines) <= 22


def test_the_doctor_finds_nothing_to_fix(run_command) -> None:
    done = run_command("doctor")
    assert "OpenSlide" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "words"), [("torch", "torch does not load"), ("openslide", "OpenSlide does not load")]
)
def test_the_doctor_names_what_does_not_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    from minugan_cli import inspection

    monkeypatch.setitem(sys.modules, name, None)
    assert inspection.doctor() == 1
    assert f"FIX  {words}" in capsys.readouterr().out


def test_status_and_verify_tell_of_a_finished_run(run_command, finished: Path) -> None:
    import jsonschema

    from wsi_minugan.schemas import FOLDER

    status = json.loads(run_command("status", finished, "--json").stdout)
    jsonschema.validate(status, json.loads((FOLDER / "status.schema.json").read_text()))
    assert [s["status"] for s in status["slides"]] == ["done"]
    assert run_command("verify", finished).returncode == 0


def test_verify_names_a_changed_file(run_command, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    path = next((tmp_path / "copy").glob("*/count.json"))
    path.write_text(path.read_text() + " ")
    done = run_command("verify", tmp_path / "copy")
    assert done.returncode == 1
    assert "count.json: changed" in done.stdout


def change_tissue(slide_folder: Path) -> None:
    path = slide_folder / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"tissue_mm2": 9.9}, indent=2) + "\n")


@pytest.mark.parametrize("ledger_of_before", [False, True])
def test_verify_names_a_manifest_that_was_changed(
    finished: Path, tmp_path: Path, ledger_of_before: bool
) -> None:
    from minugan_jobs.state.status import verify_run

    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    if ledger_of_before:  # earlier versions kept no digest of manifests
        with sqlite3.connect(out / "ledger.sqlite") as db:
            db.execute("ALTER TABLE slides DROP COLUMN sealed")
    assert dict(verify_run(out)) == {"synthetic slide": []}
    change_tissue(out / "synthetic slide")
    ((_, problems),) = verify_run(out)
    assert any("tissue_mm2 9.9" in text for text in problems)
    assert ("manifest.json: changed since the run" in problems) != ledger_of_before


def test_verify_names_files_that_were_added_hidden_ones_too(
    run_command, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    added = [".hidden", "added.txt", "masks.zarr/.x", ".folder/y", "link"]
    for name in added[:-1]:
        (out / "synthetic slide" / name).parent.mkdir(exist_ok=True)
        (out / "synthetic slide" / name).touch()
    (out / "synthetic slide" / "link").symlink_to(tmp_path)
    (out / "synthetic slide" / ".work").mkdir()
    (out / "synthetic slide" / ".work" / "plan.npz").touch()
    (out / "notes.txt").touch()
    done = run_command("verify", out)
    assert done.returncode == 1
    for name in added:
        assert f"synthetic slide: {name}: not listed in the manifest" in done.stdout
    assert ".work" not in done.stdout
    assert done.stderr == "Note: notes.txt is in no manifest, and was not checked.\n"


@pytest.mark.slow
def test_names_do_not_leave_a_run_with_pseudonyms(run_command, tmp_path: Path, slide: Path) -> None:
    named = tmp_path / "Jane Doe.tiff"
    named.write_bytes(slide.read_bytes())
    done = run_command("run", named, tmp_path / "John Roe.svs", "-o", tmp_path / "o", "--pseudonyms")
    assert done.returncode == 1
    out = tmp_path / "o"
    with (out / "pseudonyms.csv").open() as f:
        assert [r["slide_id"] for r in csv.DictReader(f)] == ["slide-0001", "slide-0002"]
    told = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    told.pop("pseudonyms.csv")
    told |= {"output": (done.stdout + done.stderr).encode()}
    told |= {"status": run_command("status", out, "--json").stdout.encode()}
    for name, content in told.items():
        # Encoded pictures hold any three letters somewhere.
        text = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", content)
        assert b"Jane" not in text, name
        assert b"John" not in text, name


@pytest.mark.slow
def test_a_finished_slide_whose_folder_was_removed_is_done_again(
    run_command, tmp_path: Path, slide: Path, finished: Path
) -> None:
    shutil.copytree(finished, tmp_path / "o")
    shutil.rmtree(tmp_path / "o" / "synthetic slide")
    done = run_command("run", slide, "-o", tmp_path / "o", "--block", "512")
    assert done.returncode == 0, done.stderr
    assert run_command("verify", tmp_path / "o").returncode == 0


@pytest.mark.slow
def test_any_dask_scheduler_runs_a_batch(run_command, tmp_path: Path, slide: Path, finished: Path) -> None:
    done = run_command(
        "run", slide, "-o", tmp_path / "o", "--scheduler", shared_scheduler(), "--block", "512"
    )
    assert done.returncode == 0, done.stderr
    name = "synthetic slide/count.json"
    assert (tmp_path / "o" / name).read_bytes() == (finished / name).read_bytes()


def test_a_scheduler_that_does_not_answer_is_told(run_command, tmp_path: Path, slide: Path) -> None:
    done = run_command("run", slide, "-o", tmp_path / "o", "--scheduler", "tcp://127.0.0.1:9")
    assert done.returncode == 2
    assert "No Dask scheduler answers" in done.stderr


def test_slides_are_watched_until_they_have_settled(tmp_path: Path) -> None:
    from minugan_jobs.watcher import Arrivals

    clock = [0.0]
    arrivals = Arrivals(tmp_path, 10, lambda: clock[0])
    assert arrivals.settled() == ()
    slide = tmp_path / "a.svs"
    slide.write_bytes(b"1")
    assert arrivals.settled() == ()
    clock[0] = 8
    slide.write_bytes(b"12")
    assert arrivals.settled() == ()
    clock[0] = 17
    assert arrivals.settled() == ()
    clock[0] = 18
    assert [s.slide_id for s in arrivals.settled()] == ["a"]
    assert arrivals.settled() == ()


def test_a_slide_of_several_files_has_settled_when_all_of_them_have(tmp_path: Path) -> None:
    from minugan_jobs.watcher import Arrivals

    clock = [0.0]
    arrivals = Arrivals(tmp_path, 10, lambda: clock[0])
    (tmp_path / "a.mrxs").write_bytes(b"1")
    (tmp_path / "a").mkdir()
    (tmp_path / "series").mkdir()
    series = b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI\x06\x001.2.3\0"
    (tmp_path / "series" / "1.dcm").write_bytes(series)
    assert arrivals.settled() == ()
    clock[0] = 8
    (tmp_path / "a" / "Data0001.dat").write_bytes(b"2")
    (tmp_path / "series" / "2.dcm").write_bytes(series)
    assert arrivals.settled() == ()
    clock[0] = 17
    assert arrivals.settled() == ()
    clock[0] = 18
    assert [s.slide_id for s in arrivals.settled()] == ["a", "series"]


def test_one_mitosis_of_one_slide_is_told_as_one(
    run_command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from minugan_cli.progress import Progress
    from minugan_jobs.scheduler import Event
    from minugan_jobs.tasks import Outcome

    from wsi_minugan.outputs.models import SlideState

    mark = '{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}'
    (tmp_path / "m.geojson").write_text(mark)
    done = run_command("count", tmp_path / "m.geojson", "--mpp", "0.25", "-o", tmp_path / "c.json")
    assert done.stdout.startswith("1 mitosis; 1 in the hot spot")
    shown = run_command("count", tmp_path / "m.geojson", "--mpp", "0.25")
    assert json.loads(shown.stdout)["mitoses"] == 1
    assert shown.stderr.splitlines()[-1].startswith("1 mitosis; 1 in the hot spot")
    row = SlideState(slide_id="s", path="s", status="done", mitoses=1, hotspot_mitoses=1)
    with Progress(1, quiet=False) as progress:
        progress(Event("done", "s", outcome=Outcome(1.0, row=row)))
    assert "1 mitosis in" in capsys.readouterr().err


def test_agree_names_readers_whose_resolutions_differ(finished: Path, tmp_path: Path, run_command) -> None:
    folder = next(finished.glob("*/manifest.json")).parent
    other = tmp_path / "by hand.geojson"
    other.write_bytes((folder / "mitoses.geojson").read_bytes())
    call = ("agree", folder, other, "--mpp", "0.26")
    done = run_command(*call)
    assert done.returncode == 2
    assert "0.26" in done.stderr
    assert "--no-places" in done.stderr
    assert run_command(*call, "--no-places").returncode == 0
