"""Bad input gets a sentence, never a traceback; the other slides go on."""

import csv
import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import find_bundle
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide


def write_rgb(
    path: Path, pixels: np.ndarray, x: float = 40_000, y: float = 40_000, unit: str | None = "CENTIMETER"
) -> None:
    options = {"resolution": (x, y), "resolutionunit": unit} if unit else {}
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(256, 256), compression="jpeg", metadata=None, **options
    )


def without_its_end(data: bytes) -> bytes:
    """Return a slide cut off before its directory, which scanners write last."""
    return data[:4] + len(data).to_bytes(4, "little") + data[8 : len(data) // 3]


def with_damaged_tags(data: bytes) -> bytes:
    """Return a slide whose directory holds tags of no known type."""
    start = int.from_bytes(data[4:8], "little")
    damaged = bytearray(data)
    for k in range(int.from_bytes(data[start : start + 2], "little")):
        damaged[start + 4 + 12 * k : start + 6 + 12 * k] = b"\xee\xee"
    return bytes(damaged)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory, run_command):
    """Run one batch of good and bad slides, and return its exit status, rows and messages."""
    folder = tmp_path_factory.mktemp("bad")
    slides, out = folder / "slides", folder / "out"
    slides.mkdir()
    small = SyntheticSlide(400, 380, seed=2, mitoses=1, tissue_fraction=0.7)
    pixels = small.draw(Box(0, 0, 380, 400))
    write_slide(slides / 'good ‘name’ with "quotes" & ünïcode.tiff', small)
    (slides / "not an image.svs").write_text("plain text")
    data = (slides / 'good ‘name’ with "quotes" & ünïcode.tiff').read_bytes()
    (slides / "truncated.tiff").write_bytes(data[: len(data) // 3])
    (slides / "truncated svs.svs").write_bytes(without_its_end(data))
    (slides / "damaged.tiff").write_bytes(with_damaged_tags(data))
    write_rgb(slides / "no mpp.tiff", pixels, unit=None)
    write_rgb(slides / "implausible mpp.tiff", pixels, 40, 40)
    write_rgb(slides / "unequal mpp.tiff", pixels, 40_000, 20_000)
    write_rgb(slides / "blank.tiff", np.full((600, 600, 3), 244, np.uint8))
    write_rgb(slides / "one pixel.tiff", np.full((1, 1, 3), (200, 120, 190), np.uint8))
    write_rgb(slides / "smaller than a patch.tiff", pixels[100:250, 100:280])
    tifffile.imwrite(
        slides / "sixteen bit.tiff", np.zeros((300, 300, 3), np.uint16), photometric="rgb", tile=(256, 256)
    )
    bad = bytearray(data)
    with tifffile.TiffFile(slides / 'good ‘name’ with "quotes" & ünïcode.tiff') as tif:
        page = tif.pages[0]
        bad[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]] = (
            b"\0" * page.databytecounts[0]
        )
    (slides / "bad tile.tiff").write_bytes(bytes(bad))
    done = run_command("run", slides, folder / "missing.svs", "-o", out)
    with (out / "slides.csv").open(encoding="utf-8-sig") as f:
        rows = {r["slide_id"]: r for r in csv.DictReader(f)}
    return done, rows, out


def test_the_exit_status_says_that_some_failed(batch) -> None:
    assert batch[0].returncode == 1
    assert "Traceback" not in batch[0].stderr + batch[0].stdout


def test_good_slides_are_finished_whatever_their_name_or_size(batch) -> None:
    done = {name for name, row in batch[1].items() if row["status"] == "done"}
    assert any(name.startswith("good") for name in done)
    assert "smaller than a patch" in done


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "cannot be read"),
        ("not an image", "cannot be opened"),
        ("no mpp", "--mpp"),
        ("implausible mpp", "not plausible"),
        ("unequal mpp", "unequal"),
        ("blank", "No tissue"),
        ("sixteen bit", "brightfield"),
        ("bad tile", "does not decode"),
        ("truncated", "cannot be opened as a slide"),
        ("truncated svs", "It may be truncated, still being copied, or not a slide"),
        ("damaged", "cannot be opened as a slide"),
        ("one pixel", "No tissue was found"),
    ],
)
def test_a_bad_slide_fails_with_its_reason(batch, name: str, words: str) -> None:
    row = batch[1][name]
    assert row["status"] == "failed"
    assert words in row["error"]
    assert "Unexpected" not in row["error"], row["error"]
    assert len(row["error"]) > 20


def test_the_lines_of_the_libraries_do_not_reach_the_user(batch) -> None:
    # Workers' lines come here too: they write to the same terminal.
    for word in ("tifffile", "TiffTag", "invalid offset", "WARNING"):
        assert word not in batch[0].stdout + batch[0].stderr


@pytest.mark.parametrize("change", [without_its_end, with_damaged_tags])
def test_inspecting_a_damaged_slide_tells_one_sentence(
    tmp_path: Path, good: Path, run_command, change
) -> None:
    (tmp_path / "bad.svs").write_bytes(change(good.read_bytes()))
    done = run_command("inspect", tmp_path / "bad.svs")
    refused(done, "cannot be opened as a slide")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_the_report_escapes_names_and_tells_failures(batch) -> None:
    html = (batch[2] / "report.html").read_text()
    assert "&#34;quotes&#34; &amp; ünïcode" in html or "_quotes_" in html
    assert "No tissue was found" in html


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "s.tiff"
    write_slide(path, SyntheticSlide(300, 300, mitoses=1))
    return path


def refused(done, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_folder_without_slides_is_refused(tmp_path: Path, run_command) -> None:
    (tmp_path / "empty").mkdir()
    refused(run_command("run", tmp_path / "empty", "-o", tmp_path / "o"), "holds no slides")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "o").write_text("a file")
    refused(run_command("run", good, "-o", tmp_path / "o"), "cannot be used")


def test_a_read_only_output_is_refused(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "o").mkdir(mode=0o500)
    refused(run_command("run", good, "-o", tmp_path / "o", obey_rights=True), "cannot be used")


@pytest.mark.parametrize("mode", [0o000, 0o300])
def test_an_output_that_may_not_be_read_is_refused_with_what_to_do(
    tmp_path: Path, good: Path, run_command, mode: int
) -> None:
    (tmp_path / "o").mkdir(mode=mode)
    done = run_command("run", good, "-o", tmp_path / "o", obey_rights=True)
    refused(done, "cannot be used: Permission denied", "Choose a folder you may read and write")


@pytest.mark.parametrize("name", ["status", "verify", "retry", "count"])
def test_results_that_may_not_be_read_are_told(tmp_path: Path, run_command, name: str) -> None:
    (tmp_path / "o").mkdir(mode=0o000)
    refused(run_command(name, tmp_path / "o", obey_rights=True), "cannot be read: Permission denied", "Check")


def test_a_picture_in_a_folder_without_entry_is_told(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "o").mkdir(mode=0o000)
    done = run_command("inspect", good, "--png", tmp_path / "o" / "p.png", obey_rights=True)
    refused(done, "cannot be written: Permission denied")


def test_a_refused_run_is_not_told_as_one_that_ended_without_notice(
    tmp_path: Path, good: Path, run_command
) -> None:
    (tmp_path / "o" / good.stem).mkdir(parents=True)
    for _ in range(2):
        done = run_command("run", good, "-o", tmp_path / "o")
        refused(done, "not of a run of this program")
        assert "without notice" not in done.stderr


def test_a_resolution_in_a_table_is_told_as_one_of_the_table(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "t.csv").write_text(f"path,mpp\n{good.name},7\n")
    done = run_command("run", tmp_path / "t.csv", "-o", tmp_path / "o", "--dry-run")
    assert done.returncode == 1
    assert "column mpp" in " ".join(done.stderr.replace("│", " ").split())
    assert "--mpp" not in done.stderr


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, run_command) -> None:
    (tmp_path / "slides").mkdir(mode=0o000)
    refused(run_command("run", tmp_path / "slides", "-o", tmp_path / "o", obey_rights=True), "cannot be read")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.slow
def test_a_slide_in_a_folder_that_may_not_be_entered_fails_and_the_others_go_on(
    tmp_path: Path, good: Path, run_command
) -> None:
    (tmp_path / "closed").mkdir()
    shutil.copy(good, tmp_path / "closed" / "s.tiff")
    (tmp_path / "closed").chmod(0)
    table, out = tmp_path / "slides.csv", tmp_path / "o"
    table.write_text(f"path\n{tmp_path / 'closed' / 's.tiff'}\n{good}\n")
    done = run_command("run", table, "-o", out, "--workers", "1", obey_rights=True)
    assert "1 of 2 slides done, 1 failed" in done.stdout, done.stderr
    assert "Permission denied" in (out / "slides.csv").read_text()
    inspected = run_command("inspect", tmp_path / "closed" / "s.tiff", obey_rights=True)
    refused(inspected, "cannot be read: Permission denied", "Check who may read it")
    watched = run_command("watch", tmp_path / "closed" / "in", "-o", out, obey_rights=True)
    refused(watched, "no folder", "who may read it")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    from wsi_minugan.errors import DiskFullError
    from wsi_minugan.outputs.atomic import write_bytes

    (tmp_path / "f").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="Free some space"), (tmp_path / "f").open("wb", buffering=0):
        (tmp_path / f".x.{os.getpid()}.partial").symlink_to("/dev/full")
        write_bytes(tmp_path / "x", b"0" * 100)


def test_an_output_of_another_run_is_refused(tmp_path: Path, good: Path, finished: Path, run_command) -> None:
    refused(run_command("run", good, "-o", finished), "another run", "--overwrite")


def test_a_ledger_that_is_none_is_refused(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "ledger.sqlite").write_text("not a database, but long enough to look like one " * 40)
    refused(run_command("run", good, "-o", tmp_path / "o"), "ledger")


def test_weights_with_a_wrong_digest_are_refused(tmp_path: Path, good: Path, run_command) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("card.json", "model.safetensors"):
        (model / name).write_bytes((find_bundle("default") / name).read_bytes())
    with (model / "model.safetensors").open("ab") as f:
        f.write(b"x")
    refused(run_command("run", good, "-o", tmp_path / "o", "--model", model), "not those of the card")


def test_a_wrong_model_schema_is_refused(tmp_path: Path, good: Path, run_command) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "card.json").write_text('{"schema_version": 99}')
    refused(run_command("run", good, "-o", tmp_path / "o", "--model", tmp_path / "model"), "not a model card")


def test_cuda_without_cuda_is_refused(tmp_path: Path, good: Path, run_command) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    refused(run_command("run", good, "-o", tmp_path / "o", "--device", "cuda"), "cpu")


@pytest.mark.parametrize(
    "flags",
    [
        ["--stride", "7"],
        ["--device", "tpu"],
        ["--workers", "0"],
        ["--config", "/nowhere.yaml"],
        ["--hotspot-mm2", "-1"],
    ],
)
def test_wrong_use_ends_with_status_2(tmp_path: Path, good: Path, run_command, flags: list[str]) -> None:
    refused(run_command("run", good, "-o", tmp_path / "o", *flags))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"aspect": "4to3"}, "two whole numbers with a colon, such as 4:3"),
        ({"aspect": "0:3"}, "two whole numbers with a colon"),
        ({"aspect": "100:3"}, "between 1:10 and 10:1"),
        ({"hotspot_mm2": 1e9}, "less than or equal to 1000"),
    ],
)
def test_a_hot_spot_that_no_slide_has_is_refused_in_words(flags: dict[str, object], words: str) -> None:
    from wsi_minugan.config import load_settings
    from wsi_minugan.errors import SettingsError

    with pytest.raises(SettingsError, match=words):
        load_settings(None, flags)


def test_flags_win_over_the_configuration(tmp_path: Path) -> None:
    from wsi_minugan.config import load_settings

    path = tmp_path / "c.yaml"
    path.write_text("stride_px: 224\nworkers: 3\n")
    settings = load_settings(path, {"workers": 1, "mpp": None})
    assert (settings.stride_px, settings.workers) == (224, 1)


def test_a_configuration_may_name_settings_like_the_flags(tmp_path: Path) -> None:
    from wsi_minugan.config import load_settings

    path = tmp_path / "c.yaml"
    path.write_text("stride: 224\nbatch-size: 4\nhpf_diameter_mm: 0.6\n")
    settings = load_settings(path, {})
    assert (settings.stride_px, settings.batch_size, settings.hpf_diameter_mm) == (224, 4, 0.6)


@pytest.mark.parametrize(
    "text",
    [
        "unknown: 1",
        "- a list",
        "a: [",
        "!!python/object:os.system x",
        "{1: 2}",
        "a: 2020-13-45",
        "hotspot_mm2: .inf",
        "stall_s: 1e12",
    ],
)
def test_a_bad_configuration_is_refused(tmp_path: Path, text: str) -> None:
    from wsi_minugan.config import load_settings
    from wsi_minugan.errors import SettingsError

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings(tmp_path / "c.yaml", {})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("mpp: 0.25\nworkers: 2\nmpp: 0.5", ("mpp", "1", "3")),
        ("{mpp: 0.25, mpp: 0.25}", ("mpp", "1", "1")),
        ("stride: 192\nstride_px: 224", ("stride", "stride_px")),
        ("stride-px: 192\nstride_px: 224", ("stride-px", "stride_px")),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, lines: tuple[str, ...]) -> None:
    from wsi_minugan.config import load_settings
    from wsi_minugan.errors import SettingsError

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SettingsError, match="twice") as caught:
        load_settings(tmp_path / "c.yaml", {})
    assert all(word in str(caught.value) for word in lines)


def test_a_key_of_a_cluster_that_stands_twice_is_refused(tmp_path: Path) -> None:
    from minugan_jobs.clusters.cluster_file import load_cluster

    from wsi_minugan.errors import SettingsError

    (tmp_path / "c.yaml").write_text("kind: slurm\noptions: {memory: 8GB, cores: 1, memory: 80GB}\n")
    with pytest.raises(SettingsError, match="'memory' stands twice"):
        load_cluster(tmp_path / "c.yaml")


@pytest.mark.parametrize("itself", [False, True])
def test_a_file_that_unfolds_to_millions_of_values_is_refused(tmp_path: Path, itself: bool) -> None:
    from wsi_minugan.config import load_settings
    from wsi_minugan.errors import SettingsError

    doubled = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
    (tmp_path / "c.yaml").write_text("model: &a [*a]" if itself else "\n".join(["a0: &a0 [1, 1]", *doubled]))
    with pytest.raises(SettingsError, match="values"):
        load_settings(tmp_path / "c.yaml", {})


@pytest.mark.parametrize(("code", "status"), [("ENOSPC", 1), ("EACCES", 2)])
def test_a_full_disk_is_no_wrong_use_and_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, good: Path, code: str, status: int
) -> None:
    from minugan_cli import main

    def refuse(path: Path, data: bytes) -> None:
        number = getattr(errno, code)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(sys, "argv", ["wsi-minugan", "run", str(good), "-o", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == status
