"""The wheel and the sdist are whole, small, and work alone."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.test_docs import ROOT

MOST_BYTES = 60 * 10**6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def succeed(*arguments: object, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(a) for a in arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    if not (ROOT / ".git").exists():
        pytest.skip("the sdist lists what git knows")
    succeed(sys.executable, "-m", "build", "--no-isolation", "--outdir", out)
    return out


def test_both_are_small_and_hold_the_licence(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size < MOST_BYTES
    assert sdist.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert {n.split("/")[0].split("-")[0] for n in names} == {
        "wsi_minugan",
        "minugan_cli",
        "minugan_jobs",
        "minugan_training",
    }
    with tarfile.open(sdist) as t:
        assert any(n.endswith("/tests/conftest.py") for n in t.getnames())


def test_the_wheel_holds_model_templates_and_types(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
    assert "wsi_minugan/minugan/bundled/default/model.safetensors" in names
    assert "wsi_minugan/py.typed" in names
    assert any(n.startswith("wsi_minugan/outputs/templates/") for n in names)
    # The viewer's page is built already; its sources and node's packages are nobody's but the developers'.
    assert {f"wsi_minugan/viewer/static/{n}" for n in ("index.html", "main.js", "viewer.css")} < names
    assert any(n.startswith("wsi_minugan/viewer/templates/") for n in names)
    assert not any("frontend" in n or "node_modules" in n for n in names)


def test_the_wheel_works_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv = tmp_path / "venv"
    succeed(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    site = next((venv / "lib").glob("python*/site-packages"))
    # Dependencies are those of this environment: a path in a .pth brings no editable install along.
    places = {sysconfig.get_path("purelib"), *(p for p in sys.path if p.endswith("site-packages"))}
    (site / "dependencies.pth").write_text("\n".join(sorted(places)) + "\n")
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
    code = "import sys, wsi_minugan, minugan_cli.main; print(wsi_minugan.__file__); sys.argv[1:] = ['doctor']; minugan_cli.main.main()"
    env_free = [python, "-I", "-c", code]
    told = succeed(*env_free, cwd=tmp_path)
    assert str(site) in told.splitlines()[0]
    assert "weights as its card says" in told
    assert "FIX" not in told or "free in" in told


def test_the_version_comes_from_git_and_not_from_a_file() -> None:
    import wsi_minugan

    assert wsi_minugan.__version__[0].isdigit()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in text
    assert os.environ.get("SETUPTOOLS_SCM_PRETEND_VERSION") is None
