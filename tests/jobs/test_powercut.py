"""The power is cut at every step of a batch: what is noted as done is there and whole, and the same command ends with the same bytes.

Between two syncs a disk may keep all that a program wrote, or nothing of it. A library loaded into the program writes down all
that it does to files, and every state that a power cut can leave is made from that.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from minugan_jobs.state.ledger import LEDGER, Ledger
from minugan_jobs.state.output_folder import name_slides

from tests.jobs.powercut import batch
from tests.jobs.powercut.disk import Deed, Disk, Tree, power_cuts, tree_of, watched, write_tree
from wsi_minugan.hashing import sha256_of
from wsi_minugan.outputs import manifest
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD"),
]
GONE_ON_WITH = int(os.environ.get("MINUGAN_POWER_CUTS", "6"))
"""How many of the states are gone on with to the end, spread over all; every state's promises are checked."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("power") / "s.tiff"
    write_slide(path, SyntheticSlide(700, 600, seed=1, mitoses=2))
    return path


@pytest.fixture(scope="module")
def deeds(slide: Path) -> list[Deed]:
    """Return all that an undisturbed batch does to the files below the folder "disk"."""
    root = slide.parent / "disk"
    root.mkdir()
    call = [sys.executable, str(Path(batch.__file__)), str(slide), str(root / "out")]
    return watched(call, root, slide.parent)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is one: thousands of files are written to it."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def results(tree: Tree) -> dict[str, str]:
    """Return the digests of the files of the slide's results."""
    return {
        k: hashlib.sha256(v).hexdigest() for k, v in tree.items() if k.startswith("out/s/") and v is not None
    }


def broken_promises(out: Path, slide: Path) -> list[str]:
    """Return what a folder says that is not so."""
    if not (out / LEDGER).exists():
        return ["results without a ledger"] if (out / "s").exists() else []
    name_slides(out, [SlideInput("s", slide)], False)
    ledger, folder, found = Ledger(out), out / "s", []
    records = ledger.slides()
    noted = {stage: ledger.blocks("s", stage) for stage in ("analyse", "merge", "write")}
    seal = ledger.checksums().get("s", "")
    ledger.close()
    if records and records[0].status == "done":
        found += ["done, and not sealed"] if not (folder / manifest.MANIFEST).is_file() else []
    if (folder / manifest.MANIFEST).is_file():
        return found + manifest.verify(folder, seal)
    places = list((folder / ".work").glob("*-512"))
    for stage, part in (("analyse", "analysed"), ("write", "written")):
        for block in noted[stage]:
            shards = json.loads((places[0] / f"{part}-{block:06d}.json").read_bytes())
            lost = [n for n, d in shards.items() if not (folder / n).is_file() or sha256_of(folder / n) != d]
            found += [f"{stage} of block {block} lacks {name}" for name in lost]
    if noted["merge"]:
        found += [
            f"{n} is lost"
            for n in ("mitoses", "nuclei")
            if not (places[0] / f"merged-{n}.npz").stat().st_size
        ]
    return found


def test_the_record_of_what_a_batch_does_is_complete(deeds: list[Deed], slide: Path) -> None:
    disk = Disk(slide.parent / "disk")
    for deed in deeds:
        disk.do(deed)
    assert disk.after("whole") == tree_of(slide.parent / "disk")
    # What was done with the batch's last breath may be lost, but nothing of the slide.
    assert results(disk.after("synced")) == results(disk.after("whole"))
    assert any(name.endswith("/manifest.json") for name in results(disk.after("synced")))


def test_what_is_noted_as_done_is_whole_after_a_power_cut_at_every_step(
    deeds: list[Deed], slide: Path, quick: Path
) -> None:
    states, disk = 0, quick / "disk"
    for step, kind, tree in power_cuts(deeds, slide.parent / "disk"):
        if kind == "whole" and deeds[step].kind == "w":
            continue  # a file that is half written lies under a temporary name; SQLite's own are SQLite's business
        write_tree(tree, disk)
        assert broken_promises(disk / "out", slide) == [], (step, kind, deeds[step])
        states += 1
    assert states > 100


def test_the_same_command_ends_with_the_same_bytes_after_a_power_cut(
    deeds: list[Deed], slide: Path, tmp_path: Path
) -> None:
    root = slide.parent / "disk"
    expected = results(tree_of(root))
    states = [(step, kind, tree) for step, kind, tree in power_cuts(deeds, root) if kind != "whole"]
    for step, kind, tree in states[:: max(1, len(states) // GONE_ON_WITH)]:
        write_tree(tree, tmp_path / "disk")
        assert batch.run(slide, tmp_path / "disk" / "out") == "done", (step, kind)
        assert results(tree_of(tmp_path / "disk")) == expected, (step, kind)
