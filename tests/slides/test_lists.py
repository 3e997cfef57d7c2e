"""No slide and no column is lost without a word."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import FUZZ_S, examples, for_a_while
from wsi_minugan.errors import InputError, NoSlidesError
from wsi_minugan.slides.inputs import expand_inputs
from wsi_minugan.slides.listing.table import read_table

JPEG = "1.2.840.10008.1.2.4.50"


def table(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def only(folder: Path, text: str, encoding: str = "utf-8") -> tuple[str, float | None]:
    (found,) = expand_inputs([table(folder, text, encoding)])
    assert found.path == folder / "a.tif"
    return found.slide_id, found.mpp


# Tables


@pytest.mark.parametrize(
    "text",
    [
        "path,Slide_ID,MPP\na.tif,first,0.25\n",
        "PATH, Slide ID , mpp\na.tif, first , 0.25\n",
        "path,slide-id,mpp\n a.tif,first,0.25\n",
        '"path", "slide_id", "mpp"\n"a.tif", "first", "0.25"\n',
        "mpp,path,SlideID\n0.25,a.tif,first\n",
        "path;slide_id;mpp\na.tif;first;0,25\n",
        "path; Slide_id; MPP\na.tif; first; 0.25\n",
        "sep=;\npath;slide_id;mpp\na.tif;first;0,25\n",
        "path\tslide_id\tmpp\na.tif\tfirst\t0.25\n",
        'path,slide_id,mpp\na.tif,first,"0,25"\n',
        "path,slide_id,mpp,,\na.tif,first,0.25,,\n",
        "\n\npath,slide_id,mpp\r\n\r\na.tif,first,0.25\r\n,,\r\n",
    ],
)
def test_columns_are_known_however_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    assert only(tmp_path, text) == ("first", 0.25)
    assert only(tmp_path, text, "utf-8-sig") == ("first", 0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,mpp\na.tif,1,25\n", "3 values for 2 columns"),
        ("path\na,b.tif\n", "2 values for 1 columns"),
        ("path,mpp,mpp\na.tif,0.25,0.5\n", "'mpp' more than once"),
        ("path,MPP,mpp \na.tif,0.25,0.5\n", "'mpp' more than once"),
        ("path,Path\na.tif,b.tif\n", "'path' more than once"),
        ("path,resolution\na.tif,0.25\n", "not known: 'resolution'"),
        ("path,mpp_x\na.tif,0.25\n", "not known: 'mpp_x'"),
        ("path,,mpp\na.tif,0.25,0.5\n", "not known: ''"),
        ("file,mpp\na.tif,0.25\n", "no column 'path'"),
        ("path,mpp\na.tif,0.25 um\n", "mpp '0.25 um' is not a number"),
        ("path,mpp\na.tif,0_25\n", "is not a number"),
        ("path;mpp\na.tif;1.000,25\n", "is not a number"),
        ("path,mpp\n,0.25\n", "line 2, has no path"),
        ('path,mpp\n"a.tif,0.25\n', "cannot be read"),
        ("path,mpp\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_what_is_left_over_in_a_table_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        expand_inputs([table(tmp_path, text)])


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
LINES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5).map("\n".join)


@pytest.mark.timeout(max(900, 2 * FUZZ_S))
@for_a_while
@given(st.one_of(LINES, LINES.map("path,slide_id,mpp\n".__add__), st.binary(max_size=80)))
@examples(150)
def test_any_table_gives_rows_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        assert all(row.path for row in read_table(path))
    except InputError as e:
        assert str(path) in str(e)


# DICOM


@pytest.fixture
def series_files(tmp_path: Path, odd) -> Path:
    """Return a folder with five files of one series."""
    pytest.importorskip("pydicom")
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    folder = tmp_path / "case"
    for k in range(5):
        odd.dicom(folder / f"{k}.dcm", streams, JPEG, "YBR_FULL_422", SeriesInstanceUID="1.2.3.4")
    return folder


def test_two_series_that_refer_to_a_third_are_two_slides(tmp_path: Path, odd) -> None:
    pytest.importorskip("pydicom")
    streams = [odd.jpeg(t) for t in odd.tiles(odd.image)]
    for name in ("one", "two"):
        odd.dicom(tmp_path / "s" / f"{name}.dcm", streams, JPEG, "YBR_FULL_422", refers_to="1.2.3.4.5")
    found = expand_inputs([str(tmp_path)])
    assert [s.path.name for s in found] == ["one.dcm", "two.dcm"]
    assert len({s.slide_id for s in found}) == 2


@pytest.mark.parametrize("how", ["folder", "pattern", "files", "table", "several ways"])
def test_the_files_of_a_series_are_one_slide_however_they_are_named(series_files: Path, how: str) -> None:
    files = sorted(map(str, series_files.glob("*.dcm")))
    listed = table(series_files, "path\n" + "\n".join(files) + "\n")
    sources = {
        "folder": [str(series_files)],
        "pattern": [str(series_files / "*.dcm")],
        "files": files,
        "table": [listed],
        "several ways": [files[3], str(series_files), listed],
    }[how]
    (found,) = expand_inputs(sources)
    assert found.slide_id == "case"


def test_files_of_a_series_with_different_names_are_refused(series_files: Path) -> None:
    text = "path,slide_id\n0.dcm,first\n1.dcm,second\n"
    with pytest.raises(InputError, match=r"files of one DICOM series.*'first'.*'second'"):
        expand_inputs([table(series_files, text)])


DAMAGED = [
    b"",
    bytes(200),
    bytes(128) + b"DICM" + b"\xff" * 60,
    # Found by test_fuzz.py: a group length of 281,600 bytes, which pydicom takes for numbers.
    bytes(128) + b"DICM" + bytes.fromhex("02000000004c0400") + bytes(61),
]


def test_damaged_dicom_files_are_slides_of_their_own_and_fail_as_such(tmp_path: Path) -> None:
    for name, content in zip("abcd", DAMAGED, strict=True):
        (tmp_path / f"{name}.dcm").write_bytes(content)
    assert [s.path.stem for s in expand_inputs([str(tmp_path)])] == ["a", "b", "c", "d"]


# Folders and patterns


def test_our_own_masks_are_no_slides_of_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "out" / "s" / "masks.zarr" / "0").mkdir(parents=True)
    (tmp_path / "out" / "s" / "masks.zarr" / "0" / "x.tif").touch()
    (tmp_path / "ngff.zarr").mkdir()
    for pattern in ("**/*.zarr", "**/*"):
        assert [s.slide_id for s in expand_inputs([str(tmp_path / pattern)])] == ["ngff"]
    with pytest.raises(NoSlidesError, match="matches no slides"):
        expand_inputs([str(tmp_path / "out" / "*" / "*.zarr")])


def test_folders_behind_links_are_entered_and_loops_end(tmp_path: Path) -> None:
    slides, elsewhere = tmp_path / "slides", tmp_path / "elsewhere"
    for path in (slides / "a.svs", slides / "in" / "b.svs", elsewhere / "deep" / "c.svs"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (slides / "link").symlink_to(elsewhere)
    (slides / "in" / "back").symlink_to(slides)
    (elsewhere / "deep" / "across").symlink_to(slides / "in")
    (slides / "gone").symlink_to(tmp_path / "nowhere")
    found = expand_inputs([str(slides)])
    assert sorted(s.slide_id for s in found) == ["a", "b", "c"]
    assert len({os.path.realpath(s.path) for s in found}) == 3


@pytest.mark.parametrize("others", [["in"], ["**/*.svs"], ["in/back/**/*.svs", "."], [".", "in/back/a.svs"]])
def test_a_slide_is_taken_once_by_whatever_links_it_is_reached(tmp_path: Path, others: list[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.svs", "in/b.svs"):
        (tmp_path / name).touch()
    (tmp_path / "in" / "back").symlink_to(tmp_path)
    (tmp_path / "named.svs").symlink_to(tmp_path / "a.svs")
    found = expand_inputs([str(tmp_path / o) for o in others])
    assert sorted(s.slide_id for s in found) == ["a", "b", "named"]


@pytest.mark.parametrize("folder_first", [True, False])
def test_what_a_table_says_of_a_slide_is_not_lost_where_its_folder_is_named_too(
    tmp_path: Path, folder_first: bool
) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "b.tif").touch()
    sources = [str(tmp_path), table(tmp_path, "path,slide_id,mpp\na.tif,first,0.25\n")]
    found = expand_inputs(sources if folder_first else sources[::-1])
    assert {(s.slide_id, s.mpp) for s in found} == {("first", 0.25), ("b", None)}


def test_two_tables_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    sources = [
        table(tmp_path, "path,mpp\na.tif,0.25\n"),
        table(tmp_path / "other", "path,mpp\n../a.tif,0.5\n"),
    ]
    with pytest.raises(InputError, match=r"a\.tif was named twice.*mpp 0\.25.*mpp 0\.5"):
        expand_inputs(sources)


def test_slides_that_nothing_here_reads_are_counted_by_kind(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.svs", "b.qptiff", "c.QPTIFF", "below/d.vsi", "notes.txt", ".hidden.vsi", "README"):
        (tmp_path / name).touch()
    for name in ("DX000001", "below/1.2.840.113.7", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(100))
    said: list[str] = []
    assert [s.slide_id for s in expand_inputs([str(tmp_path)], said.append)] == ["a"]
    assert len(said) == 1
    assert "(2 .qptiff, 1 .vsi, 2 DICOM without the ending .dcm)" in said[0]
    (tmp_path / "a.svs").unlink()
    for source in (str(tmp_path), str(tmp_path / "**" / "*")):
        with pytest.raises(NoSlidesError, match=r"2 \.qptiff, 1 \.vsi, 2 DICOM"):
            expand_inputs([source])
