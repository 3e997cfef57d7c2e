"""What is left on a disk after a power cut at any step of a program: replayed from what deeds.c wrote down.

Three disks, from the worst that POSIX allows to the best: "synced" keeps only what was synced, contents of files and entries of
folders; "named" keeps all entries, and of contents what was synced (else files of no bytes, as ext4 may leave them); "whole" keeps
all, as a kill does.
"""

import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KINDS = ("synced", "named", "whole")
Tree = dict[str, bytes | None]
"""By path below the root: a file's content, or None for a folder."""

_HEAD = struct.Struct("<cxxxIIQQ")
_DEEDS = Path(__file__).with_name("deeds.c")


@dataclass(frozen=True)
class Deed:
    """One change of a file or a name: created, written, truncated, renamed, linked, unlinked, folder made or removed, synced."""

    kind: str
    path: str
    to: str
    offset: int
    data: bytes


def watched(command: Sequence[str], root: Path, scratch: Path) -> list[Deed]:
    """Run a command and return what it did to the files below `root`, in order."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library, log = scratch / "deeds.so", scratch / "deeds.log"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, _DEEDS], check=True)
    watching = {"LD_PRELOAD": str(library), "POWERCUT_ROOT": str(root), "POWERCUT_LOG": str(log)}
    subprocess.run(command, env=os.environ | watching | {"OMP_NUM_THREADS": "1"}, check=True)
    return _read(log)


def _read(log: Path) -> list[Deed]:
    raw, at, deeds = log.read_bytes(), 0, []
    while at < len(raw):
        kind, *lengths, offset, size = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        parts = []
        for length in (*lengths, size):
            parts.append(raw[at : at + length])
            at += length
        deeds.append(Deed(kind.decode(), parts[0].decode(), parts[1].decode(), offset, parts[2]))
    return deeds


@dataclass(eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class _Folder:
    now: dict[str, "_File | _Folder"] = field(default_factory=dict)
    synced: dict[str, "_File | _Folder"] = field(default_factory=dict)


class Disk:
    """The files below a root: as the program sees them, and as they would be after a power cut."""

    def __init__(self, root: Path) -> None:
        self._root, self._top = str(root), _Folder()

    def _at(self, path: str) -> tuple[dict[str, _File | _Folder], str]:
        """Return the entries of the folder that a path lies in, and its name there."""
        *above, name = path[len(self._root) + 1 :].split("/")
        folder = self._top
        for part in above:
            folder = folder.now[part]
        return folder.now, name

    def do(self, deed: Deed) -> None:
        """Take one deed."""
        if deed.path.endswith("-shm"):
            return  # SQLite's shared memory, made anew by whoever opens the database first
        if deed.path == self._root:
            self._top.synced = dict(self._top.now)
            return
        entries, name = self._at(deed.path)
        match deed.kind:
            case "c" | "m":
                entries[name] = _File() if deed.kind == "c" else _Folder()
            case "w" | "t":
                content = entries[name].content
                content.extend(bytes(max(0, deed.offset - len(content))))
                end = deed.offset + len(deed.data) if deed.kind == "w" else len(content)
                content[deed.offset : end] = deed.data
            case "r" | "l":
                there, new = self._at(deed.to)
                there[new] = entries.pop(name) if deed.kind == "r" else entries[name]
            case "u" | "d":
                del entries[name]
            case "s":
                node = entries[name]
                node.synced = bytes(node.content) if isinstance(node, _File) else dict(node.now)

    def after(self, kind: str) -> Tree:
        """Return what a power cut at this moment leaves on a disk of this kind."""
        found: Tree = {}

        def walk(folder: _Folder, above: str) -> None:
            for name, node in (folder.synced if kind == "synced" else folder.now).items():
                path = f"{above}{name}"
                if isinstance(node, _Folder):
                    found[path] = None
                    walk(node, f"{path}/")
                else:
                    found[path] = bytes(node.content) if kind == "whole" else node.synced

        walk(self._top, "")
        return found


def power_cuts(deeds: Sequence[Deed], root: Path) -> Iterator[tuple[int, str, Tree]]:
    """Yield every state, once, in which a power cut can leave the files: step, kind of disk, files."""
    disk, seen = Disk(root), set()
    for step, deed in enumerate(deeds):
        disk.do(deed)
        for kind in KINDS:
            tree = disk.after(kind)
            mark = _mark(tree)
            if mark not in seen:
                seen.add(mark)
                yield step, kind, tree


def _mark(tree: Mapping[str, bytes | None]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tree):
        content = tree[name]
        digest.update(f"{name}\0{-1 if content is None else len(content)}\0".encode() + (content or b""))
    return digest.hexdigest()


def write_tree(tree: Mapping[str, bytes | None], folder: Path) -> None:
    """Put files into a folder, in place of whatever is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in sorted(tree):
        content, path = tree[name], folder / name
        path.mkdir(parents=True, exist_ok=True) if content is None else path.write_bytes(content)


def tree_of(folder: Path) -> Tree:
    """Return a folder as a tree."""
    found = sorted(p for p in folder.rglob("*") if not p.name.endswith("-shm"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in found}
