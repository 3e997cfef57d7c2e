"""Fixtures that several rooms share: synthetic slides, the bundled model, the command line."""

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

SHARED = Path(__file__).parents[2] / "shared"
PACKAGES = ("wsi_minugan", "minugan_cli", "minugan_jobs", "minugan_training")


def pytest_configure() -> None:
    """Say what to do where the packages changed since they were installed in this environment."""
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.exit(
            f"Not installed here: {', '.join(lacking)}. Run: pip install --no-deps -e .", returncode=4
        )


NOT_QUICK = {"slow", "alone", "shared", "gpu", "slurm", "browser", "tiatoolbox"}
OTHER_PROCESSES = {"subprocess", "multiprocessing", "LocalCluster", "Client", "command", "run_command"}
HEAVY_FIXTURES = {"finished", "opened", "run_command", "shared", "obeying", "before_finish"}


def is_quick(item: pytest.Item) -> bool:
    """Return whether a test starts no other process, reads no real data and is not marked as slow."""
    marked = any(item.get_closest_marker(name) for name in NOT_QUICK)
    named = set(vars(getattr(item, "module", None) or object))
    return not (marked or HEAVY_FIXTURES & set(getattr(item, "fixturenames", ())) or OTHER_PROCESSES & named)


LONGEST = {"test_guide.py", "test_odd_run.py", "test_commands_in_docs.py", "test_kill.py", "test_slurm.py"}
"""Files that take a minute or more. They come first: else one process works on the last of them while the other is idle."""


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is quick, put the longest files first, and skip, with a reason, what this machine cannot run."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if is_quick(item):
            item.add_marker("quick")
        if item.get_closest_marker("shared") and not (SHARED / "data").is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the images in {SHARED / 'data'}"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slurm") and not (shutil.which("slurmctld") and os.geteuid() == 0):
            item.add_marker(pytest.mark.skip(reason="needs SLURM and root: jobs/slurm-on-loopback.sh start"))
        if item.get_closest_marker("browser") and not (shutil.which("chromium") and shutil.which("node")):
            item.add_marker(
                pytest.mark.skip(reason="needs Chromium and node: apt-get install chromium nodejs npm")
            )
        if item.get_closest_marker("tiatoolbox") and importlib.util.find_spec("tiatoolbox") is None:
            item.add_marker(pytest.mark.skip(reason="needs the extra [tiatoolbox]: make test-tiatoolbox"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data."""
    return SHARED


@pytest.fixture(scope="session")
def drawing() -> SyntheticSlide:
    """Return a small drawing with known mitoses."""
    return SyntheticSlide(1500, 1300, seed=4, mitoses=16)


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory, drawing: SyntheticSlide) -> Path:
    """Return the drawing as a slide."""
    path = tmp_path_factory.mktemp("slides") / "synthetic slide.tiff"
    write_slide(path, drawing)
    return path


def without_rights() -> list[str]:
    """Return what goes before a command so that it obeys the rights of files, also where the tests run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--inh-caps", "-all"]


@pytest.fixture
def obeying() -> list[str]:
    """Return what goes before a command so that it obeys the rights of files."""
    return without_rights()


@functools.cache
def shared_scheduler() -> str:
    """Return the address of a Dask scheduler with one worker process, which the tests of this process share.

    A run of a small slide spends most of its time on starting a worker of its own.
    """
    import dask
    from distributed import LocalCluster

    environment = {"OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "critical"}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment}):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        )
    atexit.register(cluster.close)
    return str(cluster.scheduler_address)


ON_ITS_OWN = {"--workers", "--cluster", "--scheduler", "--dry-run", "--device", "--config"}
"""With one of these a run says itself where it works, or does no work."""


def command(
    *arguments: object, timeout: float = 600, obey_rights: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own; a run that says nothing of its workers uses those that the tests share."""
    words = [str(a) for a in arguments]
    if words[:1] == ["run"] and not ON_ITS_OWN & set(words):
        words += ["--workers", "1"] if obey_rights else ["--scheduler", shared_scheduler()]
    call = [sys.executable, "-c", "from minugan_cli.main import main; main()", *words]
    call = [*(without_rights() if obey_rights else []), *call]
    env = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    return subprocess.run(call, capture_output=True, text=True, timeout=timeout, env=env, check=False)


@pytest.fixture(scope="session")
def run_command():
    """Return the function that runs the command line."""
    return command


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, slide: Path) -> Path:
    """Return the output folder of a whole run over the synthetic slide."""
    out = tmp_path_factory.mktemp("finished") / "out"
    done = command("run", slide, "-o", out, "--workers", "2", "--block", "512")
    assert done.returncode == 0, done.stderr
    return out
