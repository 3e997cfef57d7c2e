"""`data check` finds what would spoil a training, and nothing in a sound index."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from minugan_training.data.check import problems_of
from minugan_training.data.index import Entry, read_index

from tests.training.test_data import write
from wsi_minugan.errors import DataError


def entry(root: Path, **changes: object) -> Entry:
    """Write an image of 60 x 40 px without truth; return its entry."""
    write(root / "a.png", np.full((40, 60, 3), 200, np.uint8))
    fields: dict[str, object] = {
        "dataset": "d", "image": "a.png", "width_px": 60, "height_px": 40, "mpp": 0.25, "patient": "p",
        "mitoses": "absent", "nuclei": "unknown",
    }  # fmt: skip
    return Entry.model_validate(fields | changes)


def mitoses(kind: str, truth: str) -> dict[str, object]:
    return {"mitoses": "known", "mitoses_kind": kind, "mitoses_truth": truth}


def nuclei(kind: str, truth: str) -> dict[str, object]:
    return {"nuclei": "known", "nuclei_kind": kind, "nuclei_truth": truth}


@pytest.mark.parametrize(("told", "refused"), [("", False), ("uneven", True)])
def test_an_index_of_before_0_11_loads_unless_it_asks_for_level_colours(
    told: str, refused: bool, tmp_path: Path
) -> None:
    index = tmp_path / "index.csv"
    index.write_text(
        "dataset,image,width_px,height_px,mpp,patient,colours,mitoses,nuclei\n"
        f"d,a.png,10,10,0.25,p,{told},absent,unknown\n"
    )
    with pytest.raises(DataError, match=r"line 2.*data import") if refused else nullcontext():
        assert read_index(index)[0].image == "a.png"


def test_a_whole_images_size_is_the_indexs(tmp_path: Path) -> None:
    assert problems_of(tmp_path, [entry(tmp_path)]) == []
    for size in ({"width_px": 50}, {"height_px": 41}):
        (problem,) = problems_of(tmp_path, [entry(tmp_path, **size)])
        assert "the file has 60 x 40" in problem


def test_regions_lie_in_their_image(tmp_path: Path) -> None:
    left, right = entry(tmp_path, width_px=30), entry(tmp_path, width_px=30, x_px=30)
    assert problems_of(tmp_path, [left, right]) == []
    assert problems_of(tmp_path, [right]) == []
    (problem,) = problems_of(tmp_path, [left, right.model_copy(update={"x_px": 31})])
    assert "30 x 40 px from 31, 0, the file has 60 x 40" in problem


@pytest.mark.parametrize(
    "told",
    [
        mitoses("rgb", "b.png"),
        mitoses("instances", "b.png"),
        nuclei("rgb", "b.png"),
        nuclei("instances", "b.png"),
        nuclei("foreground", "b.png"),
        {"ignore": "b.png"},
    ],
    ids=str,
)
def test_labels_have_their_images_size(told: dict[str, object], tmp_path: Path) -> None:
    shape = (3,) if "rgb" in told.values() else ()
    write(tmp_path / "b.png", np.zeros((40, 60, *shape), np.uint8))
    assert problems_of(tmp_path, [entry(tmp_path, **told)]) == []
    write(tmp_path / "b.png", np.zeros((40, 61, *shape), np.uint8))
    (problem,) = problems_of(tmp_path, [entry(tmp_path, **told)])
    assert "b.png has 61 x 40 px, the image 60 x 40" in problem


def test_listed_pixels_outside_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,0,59,39\n\n")
    assert problems_of(tmp_path, [entry(tmp_path, **mitoses("pixel-lists", "a.csv"))]) == []
    (tmp_path / "a.csv").write_text("0,0,59,39\n60,39,-1,3\n")
    (problem,) = problems_of(tmp_path, [entry(tmp_path, **mitoses("pixel-lists", "a.csv"))])
    assert "2 pixels" in problem
    assert "lie outside, 60, 39 for one" in problem


def outline(path: Path, *corners: tuple[float, float]) -> None:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    path.write_text(f"<A><Region><Vertices>{vertices}</Vertices></Region></A>")


def test_outlines_outside_are_found_but_for_a_pixel_over_the_edge(tmp_path: Path) -> None:
    told = nuclei("monuseg-xml", "a.xml")
    outline(tmp_path / "a.xml", (-0.6, 5), (60.9, 5), (9, 40.5))
    assert problems_of(tmp_path, [entry(tmp_path, **told)]) == []
    outline(tmp_path / "a.xml", (5, 5), (70.5, 5), (9, 40))
    (problem,) = problems_of(tmp_path, [entry(tmp_path, **told)])
    assert "1 vertices" in problem
    assert "70.5, 5 for one" in problem


@pytest.mark.parametrize("name", ["a.png", "b.png", "a.csv", "a.xml"])
def test_what_cannot_be_read_is_a_problem_and_no_traceback(name: str, tmp_path: Path) -> None:
    told = {"a.csv": mitoses("pixel-lists", name), "a.xml": nuclei("monuseg-xml", name)}
    bad = entry(tmp_path, **told.get(name, {"ignore": name} if name == "b.png" else {}))
    (tmp_path / name).write_bytes(b"\x89PNG\xff,")
    (problem,) = problems_of(tmp_path, [bad])
    assert f"{name} cannot be read" in problem


def test_an_image_that_is_cut_short_is_a_problem(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "a.jpg", rng.integers(0, 255, (40, 60, 3), np.uint8))
    write(tmp_path / "a.tif", rng.integers(0, 255, (40, 60, 3), np.uint8))
    entries = [entry(tmp_path, image="a.jpg"), entry(tmp_path, image="a.tif")]
    assert problems_of(tmp_path, entries) == []
    for e in entries:
        whole = (tmp_path / e.image).read_bytes()
        (tmp_path / e.image).write_bytes(whole[: len(whole) * 9 // 10])
    first, second = problems_of(tmp_path, entries)
    assert "a.jpg is cut short" in first
    assert "a.tif cannot be read" in second
