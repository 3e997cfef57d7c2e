"""One run per output folder, and who held it before."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from minugan_jobs.state.lock import LOCK, OWNER, held, hold

from wsi_minugan.errors import LockedError, MinuganError, OutputError


def test_a_run_that_ends_well_leaves_no_owner(tmp_path: Path) -> None:
    for _ in range(2):
        with hold(tmp_path) as told:
            assert told is None
            assert (tmp_path / OWNER).is_file()
        assert not (tmp_path / OWNER).exists()


@pytest.mark.parametrize("error", [OutputError, MinuganError])
def test_a_run_that_was_refused_did_not_end_without_notice(tmp_path: Path, error: type[MinuganError]) -> None:
    with pytest.raises(error, match="refused"), hold(tmp_path):
        raise error("refused")
    with hold(tmp_path) as told:
        assert told is None


def test_a_run_that_was_killed_is_told_and_its_lock_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom minugan_jobs.state.lock import hold\n"
        "with hold(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode < 0
    with hold(tmp_path) as told:
        assert told is not None
        assert "ended without notice" in told
    with hold(tmp_path) as told:
        assert told is None


def test_a_glance_at_the_lock_has_no_run_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as f:
        fcntl.flock(f, fcntl.LOCK_SH)  # as `status` does for a moment
        threading.Timer(0.1, lambda: fcntl.flock(f, fcntl.LOCK_UN)).start()
        with hold(tmp_path):
            assert held(tmp_path)


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with hold(tmp_path):
        with pytest.raises(LockedError, match="in use"), hold(tmp_path):
            pass
        assert (tmp_path / OWNER).is_file()
