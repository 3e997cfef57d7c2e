"""A viewer in a process of its own, and node to run the browser's tests."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FRONTEND = Path(__file__).parents[2] / "wsi_minugan" / "viewer" / "frontend"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of a run's output folder, which the test may change."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """Return the function that starts a viewer and returns its address."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Path, *options: str) -> str:
        call = [sys.executable, "-c", "from minugan_cli.main import main; main()", "view", str(place)]
        process = subprocess.Popen(
            [*call, "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return the frontend's packages, installed from its lock file where they are not there."""
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    modules = FRONTEND / "node_modules"
    if not (modules / "playwright-core").is_dir():
        done = subprocess.run(["npm", "ci", "--no-audit"], cwd=FRONTEND, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("npm ci does not reach the registry")
    return modules


@pytest.fixture
def browse(node_modules: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return the function that runs one of the browser's scripts and returns what it saw."""
    pictures = Path(os.environ.get("VIEWER_PICTURES", tmp_path / "pictures"))
    pictures.mkdir(exist_ok=True)

    def run(script: str, address: str) -> dict[str, Any]:
        call = ["node", str(FRONTEND / "e2e" / script), address, str(pictures)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=270, check=False)
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    return run
