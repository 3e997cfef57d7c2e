"""From names to slides."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError, SlideUnreadableError
from wsi_minugan.pipeline.plan import open_reader
from wsi_minugan.slides.guarded import StallGuard
from wsi_minugan.slides.inputs import expand_inputs, safe_name


def test_files_folders_patterns_and_tables_name_each_slide_once(tmp_path: Path) -> None:
    for name in ("a.svs", "b.tiff", "notes.txt"):
        (tmp_path / name).touch()
    table = tmp_path / "list.csv"
    table.write_text("path,slide_id,mpp\na.svs,first,0.25\nb.tiff,,\n")
    found = expand_inputs([str(table), str(tmp_path), str(tmp_path / "*.svs")])
    assert [(s.slide_id, s.mpp) for s in found] == [("first", 0.25), ("b", None)]


def test_a_table_with_semicolons_and_decimal_commas_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path;slide_id;mpp\na.svs;first;0,25\n")
    (found,) = expand_inputs([str(tmp_path / "list.csv")])
    assert (found.slide_id, found.mpp) == ("first", 0.25)


def test_the_same_stem_gets_a_hash_each(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.svs").touch()
    names = [s.slide_id for s in expand_inputs([str(tmp_path)])]
    assert len(set(names)) == 2
    assert all(n.startswith("s-") for n in names)


def test_a_folder_without_slides_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no slides"):
        expand_inputs([str(tmp_path)])


def test_an_empty_folder_among_others_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "s.svs").touch()
    said: list[str] = []
    sources = [str(tmp_path / "empty"), str(tmp_path / "none*.svs"), str(tmp_path / "s.svs")]
    assert [s.slide_id for s in expand_inputs(sources, said.append)] == ["s"]
    assert len(said) == 2
    assert "holds no slides" in said[0]
    assert "matches no slides" in said[1]


@pytest.mark.parametrize(
    "second", ["a.svs,second,", "a.svs,first,0.5", "./a.svs,second,", "a.svs,,", "a.svs,first,"]
)
def test_a_table_that_contradicts_itself_is_refused_with_both_lines(tmp_path: Path, second: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,slide_id,mpp\na.svs,first,0.25\n\n{second}\nb.svs,,\n")
    with pytest.raises(InputError, match=r"a\.svs in the lines 2 and 4"):
        expand_inputs([str(tmp_path / "t.csv")])


@pytest.mark.parametrize("row", ["a.svs,first,0.25", "a.svs,,0.25", "a.svs,,", "https://x.org/a.svs,,"])
def test_a_table_that_names_a_slide_twice_alike_names_it_once(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,slide_id,mpp\n{row}\nb.svs,,\n{row}\n")
    assert len(expand_inputs([str(tmp_path / "t.csv")])) == 2


@pytest.mark.parametrize("text", ["nothing,here\n1,2\n", "path,mpp\na.svs,abc\n", "path\n\n", "\xff\xfe"])
def test_a_bad_table_is_an_error(tmp_path: Path, text: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        expand_inputs([str(table)])


def test_what_is_no_slide_of_the_users_in_a_folder_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "._a.svs").touch()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "out" / "a" / "masks.zarr").mkdir(parents=True)
    (tmp_path / "ngff.zarr" / "0").mkdir(parents=True)
    (tmp_path / "ngff.zarr" / "0" / "label.tif").touch()
    assert [s.slide_id for s in expand_inputs([str(tmp_path)])] == ["a", "ngff"]


def test_each_dicom_series_of_a_folder_is_a_slide(tmp_path: Path) -> None:
    for name, series in (("1", b"1.2.3\0"), ("2", b"1.2.4\0"), ("3", b"1.2.3\0")):
        tag = b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little")
        (tmp_path / f"{name}.dcm").write_bytes(b"\0" * 128 + b"DICM" + tag + series)
    found = expand_inputs([str(tmp_path)])
    assert [s.path.name for s in found] == ["1.dcm", "2.dcm"]
    assert len({s.slide_id for s in found}) == 2


def test_a_dicom_file_that_does_not_answer_is_a_slide_that_fails_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_minugan.slides.guarded._AFTER_A_STALL_S", 0.05)
    tag = b"\x20\x00\x0e\x00UI" + (6).to_bytes(2, "little") + b"1.2.3\0"
    for name in ("b", "d"):
        (tmp_path / f"{name}.dcm").write_bytes(b"\0" * 128 + b"DICM" + tag)
    for name in ("a", "c"):
        os.mkfifo(tmp_path / f"{name}.dcm")  # nobody writes to it: opening it hangs
    guard = StallGuard(0.3)
    found = expand_inputs([str(tmp_path)], guard=guard)
    assert [s.path.name for s in found] == ["a.dcm", "b.dcm", "c.dcm"]
    assert len({s.slide_id for s in found}) == 3
    threads = threading.active_count()
    assert expand_inputs([str(tmp_path)], guard=guard) == found
    assert (
        threading.active_count() == threads
    )  # a watch does not ask the same file again, once more for each time
    with pytest.raises(SlideUnreadableError, match=r"a\.dcm did not answer for 0\.3 s"):
        open_reader(found[0].path, RunSettings(stall_s=0.3))


def test_a_path_that_cannot_be_looked_at_fails_as_a_slide_and_a_folder_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "is_dir", away)
    (found,) = expand_inputs([str(tmp_path / "s.svs")])
    assert found.slide_id == "s"
    with pytest.raises(InputError, match="Stale file handle"):
        expand_inputs([str(tmp_path)])


@pytest.mark.parametrize("at", ["the folder", "a folder below"])
def test_a_folder_that_does_not_answer_is_given_up_and_asked_again_once_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str
) -> None:
    (tmp_path / "below").mkdir()
    for path in (tmp_path / "a.svs", tmp_path / "below" / "b.svs"):
        path.touch()
    back, plain, told = threading.Event(), os.scandir, []

    def hanging(path: object) -> object:
        if str(path) == str(tmp_path if at == "the folder" else tmp_path / "below"):
            back.wait(20)
        return plain(path)

    guard = StallGuard(0.2)
    with monkeypatch.context() as patched:
        # The one is of os.walk, the other of Path.iterdir, as Python has it.
        patched.setattr(os, "scandir", hanging)
        patched.setattr(os, "listdir", lambda path: [e.name for e in hanging(path)])
        if at == "the folder":
            with pytest.raises(InputError, match="does not answer"):
                expand_inputs([str(tmp_path)], told.append, guard)
        else:
            assert [s.slide_id for s in expand_inputs([str(tmp_path)], told.append, guard)] == ["a"]
            assert "does not answer" in told[0]
        back.set()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(InputError):
                if len(expand_inputs([str(tmp_path)], told.append, guard)) == 2:
                    return
    raise AssertionError("it was not asked again")


def test_a_slide_named_as_a_file_of_the_run_gets_another_name(tmp_path: Path) -> None:
    (tmp_path / "Run.json.svs").touch()
    assert [s.slide_id for s in expand_inputs([str(tmp_path)])] == ["Run.json-slide"]


def test_a_file_name_that_is_no_utf8_can_be_written_everywhere(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.svs"))
    (found,) = expand_inputs([str(path)])
    assert "M\\xfcller" in found.source.encode().decode()


@given(st.text(max_size=300))
def test_a_name_is_one_folder_inside_the_output(text: str) -> None:
    name = safe_name(text)
    assert name
    assert "/" not in name
    assert "\\" not in name
    assert name not in {".", ".."}
    assert not name.startswith(".")
    assert len(name) <= 120
    assert len(name.encode()) <= 200


def test_a_folder_below_that_cannot_be_read_is_told_and_the_other_slides_are_taken(
    tmp_path: Path, obeying: list[str]
) -> None:
    # A process of its own: as root the tests may read everything.
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.svs").touch()
    for name, mode in (("closed", 0o000), (".hidden", 0o000), ("x.zarr", 0o000), ("no entry", 0o444)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.svs").touch()
        (tmp_path / name).chmod(mode)
    code = (
        "import sys; from wsi_minugan.slides.inputs import expand_inputs\n"
        "told = []; print([s.slide_id for s in expand_inputs([sys.argv[1]], told.append)]); print('\\n'.join(told))"
    )
    call = [*obeying, sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    slides, *told = done.stdout.splitlines()
    # Of a folder that may be listed but not entered, the slides are taken, and fail with their reason.
    assert slides == "['b', 'a', 'x']"
    assert len(told) == 1
    assert str(tmp_path / "closed") in told[0]
    assert "left out" in told[0]
