"""From names to slides."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_minugan.errors import InputError
from wsi_minugan.slides.inputs import expand_inputs, safe_name


def test_files_folders_patterns_and_tables_name_each_slide_once(tmp_path: Path) -> None:
    for name in ("a.svs", "b.tiff", "notes.txt"):
        (tmp_path / name).touch()
    table = tmp_path / "list.csv"
    table.write_text("path,slide_id,mpp\na.svs,first,0.25\nb.tiff,,\n")
    found = expand_inputs([str(table), str(tmp_path), str(tmp_path / "*.svs")])
    assert [(s.slide_id, s.mpp) for s in found] == [("first", 0.25), ("b", None)]


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


@pytest.mark.parametrize("text", ["nothing,here\n1,2\n", "path,mpp\na.svs,abc\n", "path\n\n", "\xff\xfe"])
def test_a_bad_table_is_an_error(tmp_path: Path, text: str) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        expand_inputs([str(table)])


@given(st.text(max_size=300))
def test_a_name_is_one_folder_inside_the_output(text: str) -> None:
    name = safe_name(text)
    assert name
    assert "/" not in name
    assert "\\" not in name
    assert name not in {".", ".."}
    assert not name.startswith(".")
    assert len(name) <= 120
