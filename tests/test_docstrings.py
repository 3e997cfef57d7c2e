"""What numpydoc's linter does not see: errors that a function raises, fields of a dataclass, and whether examples are true."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8"))
    for folder in ("wsi_minugan", "jobs/minugan_jobs", "jobs/minugan_cli", "training/minugan_training")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
ERRORS = {n.name for n in TREES["wsi_minugan/errors.py"].body if isinstance(n, ast.ClassDef)}
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(node: ast.AST, owner: ast.AST | None = None) -> Iterator[tuple[Documented, ast.AST | None]]:
    """Yield public classes and functions with the class that they stand in, and constructors."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Documented) and (child.name == "__init__" or not child.name.startswith("_")):
            yield child, owner
            if isinstance(child, ast.ClassDef):
                yield from public(child, child)


def own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what lies in a function, but not in functions within it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Documented | ast.Lambda):
            yield child
            yield from own(child)


def raised(node: ast.AST) -> set[str]:
    """Return the errors of errors.py that a function raises itself."""
    calls = [n.exc.func for n in own(node) if isinstance(n, ast.Raise) and isinstance(n.exc, ast.Call)]
    return {c.id for c in calls if isinstance(c, ast.Name)} & ERRORS


def docstrings(tree: ast.AST) -> list[str]:
    """Return the docstrings in a module."""
    return [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, Documented)]


def section(node: ast.AST | None, title: str) -> str:
    """Return the part of a docstring from a section on."""
    assert isinstance(node, Documented)
    return (ast.get_docstring(node) or "").partition(f"{title}\n{'-' * len(title)}")[2]


def test_errors_that_a_public_function_raises_stand_under_raises() -> None:
    missing = []
    for name, tree in TREES.items():
        for node, owner in public(tree):
            if not isinstance(node, ast.ClassDef):
                # What a constructor raises stands with its class.
                text = section(owner if node.name == "__init__" else node, "Raises")
                missing += [f"{name}:{node.lineno} {node.name}: {e}" for e in raised(node) if e not in text]
    assert not missing


def test_fields_of_a_public_dataclass_stand_under_attributes() -> None:
    missing = []
    for name, tree in TREES.items():
        for node, _ in public(tree):
            if isinstance(node, ast.ClassDef) and "dataclass" in " ".join(
                map(ast.unparse, node.decorator_list)
            ):
                targets = [n.target for n in node.body if isinstance(n, ast.AnnAssign)]
                fields = [t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")]
                text = section(node, "Attributes")
                missing += [f"{name}:{node.lineno} {node.name}.{f}" for f in fields if f not in text]
    assert not missing


EXAMPLES = sorted(
    {
        name
        for name, tree in TREES.items()
        for text in docstrings(tree)
        if re.search(r"^>>> (?!.*doctest: \+SKIP)", text, re.MULTILINE)
    }
)
"""Modules with an example that needs no slide."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_true(name: str) -> None:
    dotted = ".".join(Path(name.removeprefix("jobs/").removeprefix("training/")).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(dotted))
    assert found.attempted
    assert not found.failed
