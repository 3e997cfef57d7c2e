"""Imports point downwards only: cli > training, jobs > pipeline > rooms > value types."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("slides", "minugan", "segmentation", "counting", "outputs")
PACKAGES = {
    "wsi_minugan": ROOT / "wsi_minugan",
    "minugan_training": ROOT / "training" / "minugan_training",
    "minugan_jobs": ROOT / "jobs" / "minugan_jobs",
}


def modules() -> list[tuple[str, Path]]:
    """Return (dotted name, path) of every module of the project."""
    found = []
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            found.append((".".join(p for p in parts if p != "__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    """Return the project's modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return {n for n in names if n.split(".")[0] in PACKAGES}


def floor(module: str) -> int:
    """Return the floor on which a module stands; a module may import from lower floors and its own room."""
    parts = module.split(".")
    if parts[0] == "wsi_minugan":
        if len(parts) == 1 or parts[1] in {"errors", "geometry", "config", "__version__"}:
            return 0
        if parts[1] in ROOMS:
            return 1
        return 4 if parts[1] == "cli" else 2
    return 3


def room(module: str) -> str:
    """Return the room of a module: a sub-package of wsi_minugan, or a whole import package."""
    parts = module.split(".")
    if parts[0] != "wsi_minugan" or len(parts) == 1:
        return parts[0]
    return ".".join(parts[:2]) if parts[1] in {*ROOMS, "cli"} else f"floor {floor(module)}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=[m for m, _ in modules()])
def test_imports_point_down(module: str, path: Path) -> None:
    for target in imports(path):
        if target == "wsi_minugan" or target.startswith("wsi_minugan.__version__"):
            continue
        same = room(module) == room(target)
        assert same or floor(target) < floor(module), f"{module} imports {target}"


def test_library_code_does_not_print() -> None:
    for module, path in modules():
        if ".cli" in module:
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        assert not any(getattr(c.func, "id", "") == "print" for c in calls), module
