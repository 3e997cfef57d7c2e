"""What names a patient in a slide (its label, its macro picture, the scanner's notes) reaches no output."""

import base64
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr

from wsi_minugan.config import RunSettings
from wsi_minugan.geometry import Box
from wsi_minugan.pipeline.plan import open_reader, plan_slide
from wsi_minugan.pipeline.planning.plan_file import PLAN_FILE, save_plan
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide

SECRET, DATE, DAY = "Zyxomma-Petiolatum", "07/13/31", "1931:07:13 01:02:03"
NOTES = (
    f"AppMag = 40|MPP = 0.2500|ScanScope ID = {SECRET}|Filename = {SECRET}|Title = {SECRET}|User = {SECRET}|"
    f"Date = {DATE}|Time = 01:02:03|ImageID = 4711"
)


def label_of(height: int, width: int) -> np.ndarray:
    """Return a label whose pixels spell the secret, over and over."""
    letters = np.frombuffer(SECRET.encode(), np.uint8)
    return np.resize(letters, (height, width, 3))


def write_svs(path: Path) -> None:
    """Write a slide as an Aperio scanner does: levels in tiles, thumbnail, label and macro in strips."""
    pixels = SyntheticSlide(900, 800, seed=3, mitoses=4, tissue_fraction=0.7).draw(Box(0, 0, 800, 900))
    head = "Aperio Image Library v12.0.15\r\n"
    artist = [(315, "s", 0, SECRET, True)]
    said = {"photometric": "rgb", "metadata": None, "datetime": DAY, "software": SECRET, "extratags": artist}
    with tifffile.TiffWriter(path) as tif:
        tif.write(
            pixels,
            tile=(256, 256),
            compression="jpeg",
            description=f"{head}900x800 [0,0 900x800] (256x256) JPEG/RGB Q=70|{NOTES}",
            **said,
        )
        tif.write(pixels[::4, ::4].copy(), description=f"{head}900x800 -> 225x200 - |{NOTES}", **said)
        tif.write(label_of(90, 80), description=f"{head}label 80x90|{NOTES}", subfiletype=1, **said)
        tif.write(label_of(60, 160), description=f"{head}macro 160x60|{NOTES}", subfiletype=9, **said)


@pytest.fixture(scope="module")
def svs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("privacy") / "case.svs"
    write_svs(path)
    return path


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all that the files of a folder hold, as it is and unpacked."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        yield path.name, path.name.encode() + data
        if path.suffix == ".html":
            for picture in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
                yield path.name, picture_of(base64.b64decode(picture))
        elif path.suffix == ".png":
            yield path.name, picture_of(data)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                yield from ((f"{path.name}: {k}", arrays[k].tobytes()) for k in arrays.files)
        elif path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path.name, repr((table.to_pydict(), table.schema.metadata)).encode()
        elif path.suffix == ".sqlite":
            yield path.name, "\n".join(sqlite3.connect(path).iterdump()).encode()
    for root in folder.rglob("*.zarr"):
        group = zarr.open_group(root, mode="r")
        for name, member in group.members(max_depth=None):
            whole = member[...].tobytes() if isinstance(member, zarr.Array) else b""
            yield f"{root.name}/{name}", repr(dict(member.attrs)).encode() + whole


def picture_of(data: bytes) -> bytes:
    """Return a picture's pixels in RGB and its file's own bytes."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return data if pixels is None else data + pixels.tobytes() + pixels[..., ::-1].tobytes()


def tells(data: bytes) -> bool:
    """Return whether a name or a date of the slide is in some bytes."""
    words = (SECRET, DATE, DAY, "ScanScope", "Aperio Image Library")
    return any(w.encode(code) in data for w in words for code in ("utf-8", "utf-16-le"))


def test_the_search_finds_what_it_looks_for(tmp_path: Path, svs: Path) -> None:
    slide = openslide.OpenSlide(svs)
    assert slide.properties["openslide.vendor"] == "aperio"
    assert slide.properties["aperio.ScanScope ID"] == SECRET
    assert set(slide.associated_images) == {"thumbnail", "label", "macro"}
    label = np.asarray(slide.associated_images["label"])[..., :3]
    assert np.array_equal(label, label_of(90, 80))
    np.savez_compressed(tmp_path / "a.npz", label=label)
    cv2.imwrite(str(tmp_path / "b.png"), label)
    page = base64.b64encode((tmp_path / "b.png").read_bytes())
    (tmp_path / "c.html").write_bytes(b"<img src='data:image/png;base64," + page + b"'>")
    zarr.create_array(tmp_path / "d.zarr" / "x", data=label)
    zarr.open_group(tmp_path / "d.zarr", mode="a")
    found = {name for name, data in contents(tmp_path) if tells(data)}
    assert found >= {"a.npz: label", "b.png", "c.html", "d.zarr/x"}


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--pseudonyms"]])
def test_nothing_of_label_and_scanners_notes_is_in_any_file_of_a_run(
    tmp_path: Path, svs: Path, run_command, flags: list[str]
) -> None:
    out = tmp_path / "out"
    done = run_command("run", svs, "-o", out, "--block", "512", *flags)
    assert done.returncode == 0, done.stderr
    found = dict(contents(out))
    for kind in (".html", ".png", ".parquet", ".sqlite", ".json", ".geojson"):
        assert any(name.endswith(kind) for name in found), kind
    assert [name for name, data in contents(out) if tells(data)] == []
    assert not tells((done.stdout + done.stderr).encode())


def test_inspect_shows_nothing_of_label_and_scanners_notes(tmp_path: Path, svs: Path, run_command) -> None:
    done = run_command("inspect", svs, "--png", tmp_path / "p.png")
    assert done.returncode == 0, done.stderr
    assert "aperio" in done.stdout
    assert not tells((done.stdout + done.stderr).encode())
    assert [name for name, data in contents(tmp_path) if tells(data)] == []


@pytest.mark.parametrize("reader_name", ["auto", "openslide"])
def test_label_and_macro_are_never_read_and_a_plan_holds_nothing_of_them(
    tmp_path: Path, svs: Path, monkeypatch: pytest.MonkeyPatch, reader_name: str
) -> None:
    def touched(self: object, *_: object, **__: object) -> None:
        raise AssertionError("an associated picture was read")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(touched))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", touched)
    settings = RunSettings(reader=reader_name)
    reader = open_reader(svs, settings)
    plan = plan_slide(SlideInput("case", svs), reader, settings, 0.25)
    reader.read_level(0, Box(0, 0, 800, 900))
    save_plan(tmp_path, plan)
    found = list(contents(tmp_path))
    assert any(name.startswith(PLAN_FILE) for name, _ in found)
    assert [name for name, data in found if tells(data)] == []
