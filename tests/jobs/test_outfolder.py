"""A slide has one name in an output folder, whatever is run there and in which order."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minugan_jobs.state.ledger import Ledger
from minugan_jobs.state.output_folder import KEY_FILE, name_slides, prepare_folder, slides_of, unnamed

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import OutputError
from wsi_minugan.slides.inputs import SlideInput, expand_inputs


def slides(*names: str) -> tuple[SlideInput, ...]:
    return expand_inputs([f"/data/{n}" for n in names])


def begin(out: Path, *names: str, pseudonyms: bool = False) -> dict[str, str]:
    """Name slides and enter them as a run does; return path: name."""
    named = name_slides(out, slides(*names), pseudonyms)
    ledger = Ledger(out)
    ledger.add_slides(named, hidden=pseudonyms)
    ledger.note("settings", RunSettings(pseudonyms=pseudonyms).model_dump_json())
    ledger.close()
    return {str(s.path): s.slide_id for s in named}


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.sampled_from(["a.svs", "b.svs", "x/a.svs", "y/a.svs", "A.svs"]), min_size=1),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_slide_keeps_its_name_and_no_two_share_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]], pseudonyms: bool
) -> None:
    out = tmp_path_factory.mktemp("out")
    names: dict[str, str] = {}
    for batch in batches:
        found = begin(out, *batch, pseudonyms=pseudonyms)
        assert all(names.get(path, name) == name for path, name in found.items())
        names |= found
    assert len({n.casefold() for n in names.values()}) == len(names)


def test_the_key_to_the_numbers_keeps_what_earlier_runs_wrote(tmp_path: Path) -> None:
    begin(tmp_path, 'Jane "J" Doe.svs', "John Roe.svs", pseudonyms=True)
    assert begin(tmp_path, "Ann.svs", "John Roe.svs", pseudonyms=True) == {
        "/data/Ann.svs": "slide-0003",
        "/data/John Roe.svs": "slide-0002",
    }
    with (tmp_path / KEY_FILE).open() as f:
        assert {r["path"]: r["slide_id"] for r in csv.DictReader(f)} == {
            '/data/Jane "J" Doe.svs': "slide-0001",
            "/data/John Roe.svs": "slide-0002",
            "/data/Ann.svs": "slide-0003",
        }
    assert [str(s.path) for s in slides_of(tmp_path)] == [
        '/data/Jane "J" Doe.svs',
        "/data/John Roe.svs",
        "/data/Ann.svs",
    ]


def test_without_its_key_a_run_with_numbers_does_not_go_on(tmp_path: Path) -> None:
    begin(tmp_path, "Jane Doe.svs", pseudonyms=True)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(OutputError, match="Put it back"):
        prepare_folder(tmp_path, slides("Jane Doe.svs"), overwrite=False)


@pytest.mark.parametrize("pseudonyms", [True, False])
def test_names_and_numbers_are_not_mixed_in_one_folder(tmp_path: Path, pseudonyms: bool) -> None:
    begin(tmp_path, "a.svs", pseudonyms=pseudonyms)
    with pytest.raises(OutputError, match="--pseudonyms"):
        name_slides(tmp_path, slides("a.svs"), not pseudonyms)


@pytest.mark.parametrize(("folder", "pseudonyms"), [("b", False), ("slide-0002", True)])
def test_a_folder_that_is_not_of_a_run_is_never_replaced(
    tmp_path: Path, folder: str, pseudonyms: bool
) -> None:
    begin(tmp_path, "a.svs", pseudonyms=pseudonyms)
    (tmp_path / folder).mkdir()
    with pytest.raises(OutputError, match="not of a run"):
        name_slides(tmp_path, slides("a.svs", "b.svs"), pseudonyms)


def test_a_sentence_for_others_is_without_the_slides_name() -> None:
    slide = SlideInput("slide-0001", Path("/data/Doe^Jane/Jane's.svs"))
    for text in (
        f"{slide.path} cannot be read",
        f"[Errno 2] no such file: {str(slide.path)!r}",
        "/data/Doe^Jane/other.dcm does not decode",
        "Jane's is broken",
    ):
        assert "Jane" not in unnamed(text, slide)
        assert "slide-0001" in unnamed(text, slide)
