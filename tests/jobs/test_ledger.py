"""The ledger tells the truth, and one run holds a folder."""

import hashlib
import json
import multiprocessing
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minugan_jobs.state.ledger import LEDGER, VERSION, Ledger
from minugan_jobs.state.lock import OWNER, held, hold
from minugan_jobs.state.status import status_of

from wsi_minugan.errors import DiskFullError, LockedError, OutputError
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput

SLIDES = [SlideInput(f"s{k}", Path(f"/s{k}.svs"), None) for k in range(3)]


def test_slides_keep_order_and_state(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    ledger.begin("s1", "r")
    ledger.failed("s1", "why")
    ledger.begin("s0", "r")
    ledger.done("s0", SlideState(slide_id="s0", path="/s0.svs", status="done", mitoses=4), 1.5)
    ledger.add_slides(SLIDES[::-1])
    assert [(r.slide.slide_id, r.status, r.error) for r in ledger.slides()] == [
        ("s2", "pending", ""),
        ("s1", "failed", "why"),
        ("s0", "done", ""),
    ]
    assert [(s.slide_id, s.mitoses) for s in ledger.states()] == [("s2", None), ("s1", None), ("s0", 4)]


@given(
    st.lists(st.tuples(st.sampled_from(["analyse", "write"]), st.integers(0, 9)), max_size=30), st.booleans()
)
@settings(max_examples=25, deadline=None)
def test_finished_blocks_are_known_until_the_key_changes(done: list[tuple[str, int]], resumed: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.add_slides(SLIDES)
        ledger.planned("s0", "key", 10)
        for stage, block in done:
            ledger.blocks_ended("s0", stage, [block], 1, 0.1)
        ledger.close()
        ledger = Ledger(Path(folder))
        whole = {"analyse": range(10), "write": range(10)}
        ledger.planned("s0", "key", 10, whole if resumed else None)
        for stage in ("analyse", "write"):
            assert ledger.blocks("s0", stage) == ({b for s, b in done if s == stage} if resumed else set())
        ledger.close()


def test_blocks_whose_files_are_lost_are_forgotten_and_the_others_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    ledger.planned("s0", "key", 4)
    ledger.blocks_ended("s0", "analyse", range(4), 1, 0.1)
    ledger.blocks_ended("s0", "write", [2], 1, 0.1)
    ledger.planned("s0", "key", 4, {"analyse": (0, 1, 3), "write": ()})
    assert (ledger.blocks("s0", "analyse"), ledger.blocks("s0", "write")) == ({0, 1, 3}, set())
    ledger.close()


@pytest.mark.parametrize("way", ["a value that the table refuses", "a disk that is full"])
def test_a_transaction_that_fails_leaves_nothing_behind_and_the_next_one_is_whole(
    tmp_path: Path, way: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    blocks: list[int] = [0, 1, None] if "refuses" in way else [*range(200_000)]  # type: ignore[list-item]
    if "full" in way:
        ledger._db.execute("PRAGMA max_page_count = 40")  # SQLite's own way to have no room
    with pytest.raises(OutputError):
        ledger.blocks_ended("s0", "analyse", blocks, 1, 0.1)
    ledger.blocks_ended("s0", "analyse", [5], 1, 0.1)
    ledger.close()
    again = Ledger(tmp_path)
    assert again.blocks("s0", "analyse") == {5}
    again.close()


def test_another_process_may_look_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    looking = Ledger(tmp_path, read_only=True)
    assert len(looking.states()) == 3
    with pytest.raises(OutputError):
        looking.failed("s0", "no")


def test_the_digest_of_a_manifest_is_that_of_the_moment_its_slide_was_finished(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("ALTER TABLE slides DROP COLUMN sealed")
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    path = tmp_path / "s0" / "manifest.json"
    path.parent.mkdir()
    digests = []
    for text, planned in (("first", True), ("changed by hand", False), ("second", True)):
        path.write_text(text)
        if planned:
            ledger.planned("s0", "key", 1, {"analyse": (0,)})
        ledger.done("s0", None, 1.0)
        digests.append(ledger.checksums()["s0"])
    first, second = (hashlib.sha256(text).hexdigest() for text in (b"first", b"second"))
    assert digests == [first, first, second]


def test_a_ledger_of_before_columns_were_added_is_read_and_gone_on_with(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    ledger.close()
    with sqlite3.connect(tmp_path / LEDGER) as db:
        for name in ("seen", "sealed"):
            db.execute(f"ALTER TABLE slides DROP COLUMN {name}")
    db.close()
    looking = Ledger(tmp_path, read_only=True)
    assert [r.seen for r in looking.slides()] == ["", "", ""]
    assert looking.checksums() == {}
    looking.close()
    again = Ledger(tmp_path)
    again.failed("s1", "why", "a mark")
    assert [r.seen for r in again.slides()] == ["", "a mark", ""]
    again.close()


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    with pytest.raises(OutputError, match="another version"):
        Ledger(tmp_path)


def _hold_and_die(out: Path, ready: "multiprocessing.synchronize.Event", forever: bool) -> None:
    import os
    import time

    with hold(out):
        ready.set()
        if forever:
            time.sleep(60)
        os._exit(9)


@pytest.mark.parametrize("alive", [True, False])
def test_one_run_holds_a_folder_and_a_dead_ones_lock_is_taken_over(tmp_path: Path, alive: bool) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold_and_die, args=(tmp_path, ready, alive))
    other.start()
    ready.wait(30)
    if alive:
        assert held(tmp_path)
        with pytest.raises(LockedError, match=f"process {other.pid}"), hold(tmp_path):
            pass
        other.kill()
    other.join(30)
    assert not held(tmp_path)
    with hold(tmp_path) as note:
        assert note is not None
        assert "takes over its lock" in note
    assert not (tmp_path / OWNER).exists()


def test_no_slide_is_said_to_run_when_nobody_runs_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    ledger.begin("s1", "r")
    with hold(tmp_path):
        assert [s.status for s in status_of(tmp_path).slides] == ["pending", "running", "pending"]
    assert [s.status for s in status_of(tmp_path).slides] == ["pending"] * 3


@pytest.mark.parametrize("running", [False, True])
def test_who_may_only_read_a_run_sees_its_state(tmp_path: Path, run_command, running: bool) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_slides(SLIDES)
    with hold(tmp_path):
        if not running:
            ledger.close()
    with hold(tmp_path) if running else nullcontext():
        for path in (*tmp_path.iterdir(), tmp_path):
            path.chmod(0o555)
        done = run_command("status", tmp_path, "--json", obey_rights=True)
        tmp_path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert state["running"] is running
    assert len(state["slides"]) == len(SLIDES)
    ledger.close()


def test_a_ledger_on_a_full_disk_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger._db.execute("PRAGMA max_page_count = 12")  # SQLite's own way to have no room
    with pytest.raises(DiskFullError, match="disk is full"):
        ledger.note("large", "x" * 1_000_000)
    assert ledger.fact("version") == VERSION
    ledger.close()
