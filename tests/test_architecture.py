"""Imports point down only: cli > jobs, training > front door > pipeline > rooms > value types."""

import ast
import functools
import importlib
import operator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "wsi_minugan": ROOT / "wsi_minugan",
    "minugan_jobs": ROOT / "jobs" / "minugan_jobs",
    "minugan_training": ROOT / "training" / "minugan_training",
    "minugan_cli": ROOT / "jobs" / "minugan_cli",
}
BELOW = {
    "wsi_minugan": set(),
    "minugan_jobs": {"wsi_minugan"},
    "minugan_training": {"wsi_minugan"},
    "minugan_cli": {"wsi_minugan", "minugan_jobs"},
}
"""The packages that each package may import."""

FLOORS: dict[str, list[set[str]]] = {
    "wsi_minugan": [
        {"errors", "geometry", "frozen", "config", "hashing", "syncing", "words", "logs"},
        {"slides", "minugan", "segmentation", "counting", "outputs"},
        {"pipeline"},
        {"api"},
        {"review"},
        {"viewer"},
    ],
    "minugan_jobs": [{"state", "clusters"}],
    "minugan_training": [
        {"settings", "figures", "clock", "threads"},
        {"data"},
        {"importing", "sampling"},
        {"evaluation"},
        {"fitting"},
        {"classification"},
        {"packs"},
        {"paper", "export", "mean_weights"},
        {"cli"},
    ],
    "minugan_cli": [],
}
"""The floors of each package, from the bottom: rooms (folders), and modules without a room; what is not named is above all."""

MOST_MODULES = 12


def modules() -> dict[str, Path]:
    """Return the path of every module of the project by its dotted name."""
    found = {}
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


MODULES = modules()


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def imports(path: Path) -> set[str]:
    """Return the project's modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{a.name}" for a in node.names}
            names |= (members & MODULES.keys()) or {node.module}
    return names & MODULES.keys()


def floor(module: str) -> int:
    """Return the floor of a module within its package."""
    package, *parts = module.split(".")
    floors = FLOORS[package]
    return next((k for k, names in enumerate(floors) if parts and parts[0] in names), len(floors))


def room(module: str) -> str:
    """Return the room of a module: its sub-package; modules without one share their floor."""
    package, *parts = module.split(".")
    in_folder = bool(parts) and (PACKAGES[package] / parts[0]).is_dir()
    return parts[0] if in_folder else f"floor {floor(module)}"


def may_import(module: str, target: str) -> bool:
    """Return whether a module may import another: of a lower package, of a lower floor, or of its own room."""
    own, other = module.split(".", maxsplit=1)[0], target.split(".", maxsplit=1)[0]
    if target in PACKAGES:  # the version
        return True
    if own != other:
        return other in BELOW[own]
    if module in PACKAGES:  # the front door hands out what lies above
        return True
    return room(module) == room(target) or floor(target) < floor(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    for target in imports(MODULES[module]):
        assert may_import(module, target), f"{module} imports {target}"


def test_no_module_imports_itself_in_a_circle() -> None:
    # A package's own file is left out: all ask it for the version, and it may hand out what lies above.
    graph = {m: imports(path) - PACKAGES.keys() for m, path in MODULES.items() if m not in PACKAGES}
    TopologicalSorter(graph).prepare()


def test_no_package_and_no_room_is_part_of_a_circle() -> None:
    packages: dict[str, set[str]] = {p: set() for p in PACKAGES}
    rooms: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for target in imports(path) - PACKAGES.keys():
            own, other = module.split(".")[0], target.split(".")[0]
            packages[own] |= {other} - {own}
            place, wanted = f"{own}/{room(module)}", f"{other}/{room(target)}"
            rooms.setdefault(place, set()).update({wanted} - {place})
    TopologicalSorter(packages).prepare()
    TopologicalSorter(rooms).prepare()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_has_a_dozen_modules_at_most(package: str) -> None:
    for folder in [PACKAGES[package], *(p for p in PACKAGES[package].rglob("*") if p.is_dir())]:
        found = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(found) <= MOST_MODULES, f"{folder}: {found}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_named_here_is_there(package: str) -> None:
    for name in set().union(*FLOORS[package]):
        assert f"{package}.{name}" in MODULES, name


def test_library_code_does_not_print() -> None:
    for module, path in MODULES.items():
        if module.startswith(("minugan_cli", "minugan_training.cli")):
            continue
        calls = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
        assert not any(getattr(c.func, "id", "") == "print" for c in calls), module


def test_the_benchmark_of_a_block_watches_steps_that_there_are() -> None:
    tree = ast.parse((ROOT / "tests" / "benchmarks" / "block.py").read_text("utf-8"))
    (steps,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS"
    )
    for step in steps:
        module, _, path = step.partition(":")
        assert operator.attrgetter(path)(importlib.import_module(module)), step
