"""A batch does not depend on what it runs in: who looks on, how many files it may open, and what else is configured there."""

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from wsi_minugan.pipeline import facts
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

CODE = "from minugan_cli.main import main; main()"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "s.tiff"
    write_slide(path, SyntheticSlide(500, 400, seed=1, mitoses=1))
    return path


def started(*arguments: object, **how: object) -> subprocess.Popen[bytes]:
    call = [sys.executable, "-c", CODE, *map(str, arguments)]
    return subprocess.Popen(call, **{"env": ENVIRONMENT, **how})  # type: ignore[call-overload, no-any-return]


def closed_pipe() -> int:
    """Return the end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk() -> int:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    return os.open("/dev/full", os.O_WRONLY)


def no_terminal() -> int:
    """Return a terminal whose window was closed."""
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


DISPLAYS: dict[str, Callable[[], int]] = {
    "a pipe that nobody reads": closed_pipe,
    "a full disk": full_disk,
    "a terminal that is gone": no_terminal,
}


@pytest.mark.slow
@pytest.mark.parametrize("display", [*DISPLAYS, "none"])
def test_a_batch_goes_on_to_its_end_where_nothing_can_be_shown(
    slide_file: Path, tmp_path: Path, display: str
) -> None:
    out, ended = tmp_path / "o", tmp_path / "ended"
    arguments = ("run", slide_file, "-o", out, "--workers", "1", "--on-finish", f"touch {ended}")
    if display == "none":
        # Standard output and error closed, as some job systems start a program.
        shell = ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", CODE, *map(str, arguments)]
        status = subprocess.run(shell, env=ENVIRONMENT, check=False).returncode
    else:
        shown = DISPLAYS[display]()
        status = started(*arguments, stdout=shown, stderr=shown).wait(600)
        os.close(shown)
    assert status == 0
    assert '"event": "ended"' in (out / "log.jsonl").read_text()
    assert ",done," in (out / "slides.csv").read_text()
    assert ended.exists()


@pytest.mark.slow
def test_a_batch_outlives_its_terminal(slide_file: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    # As a login shell's: the terminal is the session's own, and its end sends SIGHUP to all of the session.
    run = started(
        "run",
        slide_file,
        "-o",
        tmp_path / "o",
        "--workers",
        "1",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: _take_terminal(theirs),
    )
    os.close(theirs)
    wait_for(tmp_path / "o" / "log.jsonl")
    os.close(ours)
    assert run.wait(600) == 0
    assert ",done," in (tmp_path / "o" / "slides.csv").read_text()


def _take_terminal(terminal: int) -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("display", "status"), [("a pipe that nobody reads", 0), ("a full disk", 1)], ids=["head", "full"]
)
def test_a_product_that_is_not_written_is_told_and_a_reader_that_has_enough_is_not(
    display: str, status: int
) -> None:
    shown = DISPLAYS[display]()
    done = started("models", "show", stdout=shown, stderr=subprocess.PIPE)
    said = done.communicate(timeout=600)[1].decode()
    os.close(shown)
    assert done.returncode == status, said
    assert ("cannot be written: No space left on device" in said) == (status == 1)
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def limited(files: int, hard: bool) -> Callable[[], None]:
    def limit() -> None:
        most = files if hard else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))

    return limit


def test_too_few_descriptors_for_the_workers_are_a_sentence(slide_file: Path, tmp_path: Path) -> None:
    arguments = ("run", slide_file, "-o", tmp_path / "o", "--workers", "30")
    run = started(*arguments, stderr=subprocess.PIPE, preexec_fn=limited(200, hard=True))
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 2, said
    assert "30 workers need about 424 open files, and this process may have 200." in said
    assert "pending" in (tmp_path / "o" / "slides.csv").read_text()


@pytest.mark.slow
def test_a_low_limit_that_may_be_raised_is_raised(slide_file: Path, tmp_path: Path) -> None:
    arguments = ("run", slide_file, "-o", tmp_path / "o", "--workers", "1")
    run = started(*arguments, stderr=subprocess.PIPE, preexec_fn=limited(40, hard=False))
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 0, said


@pytest.fixture
def silent_scheduler() -> Iterator[str]:
    """Return the address of something that takes connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_that_still_waits_for_its_cluster(
    slide_file: Path, tmp_path: Path, silent_scheduler: str, number: signal.Signals
) -> None:
    out = tmp_path / "o"
    run = started("run", slide_file, "-o", out, "--scheduler", silent_scheduler, stderr=subprocess.PIPE)
    wait_for(out / "run.json")
    time.sleep(3)
    begin = time.monotonic()
    run.send_signal(number)
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 128 + number, said
    assert time.monotonic() - begin < 60
    assert "Traceback" not in said
    assert '"event": "stopped"' in (out / "log.jsonl").read_text()
    assert "pending" in (out / "slides.csv").read_text()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("broken.yaml", "distributed: [", "Dask's own configuration on this machine cannot be read"),
        ("list.yaml", "- a\n- b", "Dask's own configuration on this machine cannot be read"),
        (
            "wrong.yaml",
            "distributed:\n  comm:\n    timeouts:\n      tcp: soon",
            "Dask does not start its workers here",
        ),
    ],
)
def test_a_configuration_of_dasks_that_does_not_fit_is_a_sentence(
    slide_file: Path, tmp_path: Path, name: str, content: str, told: str
) -> None:
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / name).write_text(content)
    run = started(
        "run",
        slide_file,
        "-o",
        tmp_path / "o",
        stderr=subprocess.PIPE,
        env=ENVIRONMENT | {"DASK_CONFIG": str(tmp_path / "dask")},
    )
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 2, said
    assert told in said
    assert "DASK_CONFIG=/dev/null" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_encryption_that_dask_requires_keeps_no_local_run_from_its_work(
    slide_file: Path, tmp_path: Path
) -> None:
    required = ENVIRONMENT | {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    run = started(
        "run", slide_file, "-o", tmp_path / "o", "--workers", "1", stderr=subprocess.PIPE, env=required
    )
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 0, said
    outside = ("run", slide_file, "-o", tmp_path / "p", "--scheduler", "tcp://127.0.0.1:8786")
    run = started(*outside, stderr=subprocess.PIPE, env=required)
    said = run.communicate(timeout=600)[1].decode()
    assert run.returncode == 2, said
    assert "encryption" in said
    assert "Traceback" not in said


def test_opencv_under_any_packages_name_is_named_by_its_version() -> None:
    import cv2

    assert facts.versions()["opencv"] == cv2.__version__


def test_a_version_that_nobody_says_is_said_as_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    def unknown(name: str) -> str:
        raise facts.metadata.PackageNotFoundError(name)

    # As where conda put the packages there without pip's metadata.
    monkeypatch.setattr(facts.metadata, "version", unknown)
    monkeypatch.delattr(cv2, "__version__")
    found = facts.versions()
    assert found["opencv"] == "not known"
    assert found["numpy"] == np.__version__


def test_inspect_shows_what_the_model_would_see_and_closes_the_slide(
    slide_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from minugan_cli.inspection import inspect

    from wsi_minugan.minugan.bundle import find_bundle
    from wsi_minugan.slides import opening

    (tmp_path / "m").mkdir()
    for path in find_bundle("default").iterdir():
        text = path.read_bytes()
        (tmp_path / "m" / path.name).write_bytes(
            text.replace(b'"mpp": 0.25', b'"mpp": 0.5') if path.suffix == ".json" else text
        )
    opened, closed = opening.open_slide, []

    def watched(path: Path, reader: str) -> object:
        slide = opened(path, reader)
        close = slide.close
        monkeypatch.setattr(slide, "close", lambda: (closed.append(path), close()))
        return slide

    monkeypatch.setattr(opening, "open_slide", watched)
    inspect(slide_file, None, "auto", None, str(tmp_path / "m"))
    assert "250 x 200 px at 0.5000 um/px" in capsys.readouterr().out
    assert closed == [slide_file]


def test_where_a_system_does_not_say_which_cores_may_be_used_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsi_minugan.minugan.devices import usable_cores

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
