"""A watch over night outlives what passes, and tells it."""

from pathlib import Path
from typing import Any

import pytest
from minugan_cli import monitoring, running
from minugan_jobs.watcher import Arrivals

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError, LockedError, MinuganError, ModelError


def watched(
    monkeypatch: pytest.MonkeyPatch, folder: Path, outcomes: list[int | MinuganError], once: bool = False
) -> tuple[int, list[int]]:
    """Watch a folder of one slide whose runs end as given; return the exit status and how many slides each had."""
    (folder / "a.svs").write_bytes(b"1")
    seen: list[int] = []

    def run_slides(slides: Any, out: Path, settings: Any, retry: bool, only: Any) -> int:
        seen.append(len(slides))
        outcome = outcomes[len(seen) - 1]
        if isinstance(outcome, MinuganError):
            raise outcome
        return outcome

    monkeypatch.setattr(running, "run_slides", run_slides)
    monkeypatch.setattr(monitoring, "_AGAIN_S", 0.01)
    return monitoring.watch(folder, folder / "out", None, {}, 0.02, once), seen


def test_a_slide_that_was_completed_later_is_taken_again_once_it_has_settled(tmp_path: Path) -> None:
    clock = [0.0]
    arrivals = Arrivals(tmp_path, 10, lambda: clock[0])

    def taken(seconds: float) -> list[str]:
        clock[0] = seconds
        return [s.slide_id for s in arrivals.settled()]

    slide = tmp_path / "a.svs"
    slide.write_bytes(b"trunc")
    assert (taken(0), taken(11), taken(22)) == ([], ["a"], [])
    slide.write_bytes(b"truncated no more")
    assert (taken(23), taken(30)) == ([], [])
    slide.write_bytes(b"truncated no more!")
    assert (taken(34), taken(40)) == ([], [])
    assert (taken(45), taken(60)) == (["a"], [])


def test_a_watch_takes_what_is_new_and_leaves_what_is_done_alone(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, 0)
    for names in ("a", "bc"):
        for name in names:
            (tmp_path / f"{name}.svs").write_bytes(b"1")
        # All are named, since names depend on each other; only the new ones are taken.
        assert [s.slide_id for s in arrivals.settled()] == list("abc"[: len(names) + (names != "a")])
        assert {Path(source).stem for source in arrivals.fresh} == set(names)
    arrivals.again()
    arrivals.settled()
    assert {Path(source).stem for source in arrivals.fresh} == set("bc")


def test_results_beside_a_dicom_slide_do_not_make_it_a_new_arrival(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path, 0)
    (tmp_path / "1.dcm").write_bytes(b"1")
    assert len(arrivals.settled()) == 1
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.jsonl").write_text("{}\n")
    (tmp_path / "report.html").write_text("x")
    assert arrivals.settled() == ()


def test_a_watch_goes_on_after_a_lock_and_takes_the_slides_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = LockedError("It is in use.")
    status, seen = watched(monkeypatch, tmp_path, [locked, locked, 130])
    assert (status, seen) == (130, [1, 1, 1])
    assert capsys.readouterr().err.count("It is in use.") == 1


def test_a_retry_that_is_stopped_begins_no_further_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun: list[str] = []

    def run_slides(slides: Any, out: Path, settings: RunSettings, retry: bool) -> int:
        begun.append(settings.device)
        return 143

    monkeypatch.setattr(running, "run_slides", run_slides)
    groups = [('{"device": "cpu"}', []), ('{"device": "auto"}', [])]
    monkeypatch.setattr("minugan_jobs.state.output_folder.unfinished", lambda out: groups)
    assert running.retry(tmp_path) == 143
    assert begun == ["cpu"]


def test_a_watch_that_ends_after_one_batch_ends_with_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LockedError):
        watched(monkeypatch, tmp_path, [LockedError("It is in use.")], once=True)


def test_a_watch_with_a_model_that_there_is_not_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        monitoring.watch(tmp_path, tmp_path / "o", None, {"model": "none"}, 1, False)


def test_a_folder_that_cannot_be_read_is_told_once_until_it_can_and_an_empty_one_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    arrivals = Arrivals(tmp_path, 0, tell=told.append)
    assert arrivals.settled() == ()
    assert told == []

    def away(*_: object) -> None:
        raise InputError("It cannot be read.")

    for times in (1, 2):
        with monkeypatch.context() as patched:
            patched.setattr("minugan_jobs.watcher.expand_inputs", away)
            assert arrivals.settled() == arrivals.settled() == ()
        assert told == ["It cannot be read."] * times
        assert arrivals.settled() == ()
