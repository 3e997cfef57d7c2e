"""Truth follows an entry's region, and the resolution of its sample."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from minugan_training.data.images import read_rgb
from minugan_training.data.index import Entry, TruthKind
from minugan_training.data.labels import (
    IGNORE,
    MITOSES,
    NUCLEI,
    in_samples_pixels,
    load_sample,
    mitosis_truth,
    read_instances,
)
from minugan_training.data.outlines import read_monuseg_xml, read_pixel_lists
from minugan_training.data.weak_labels import FALLBACK_PX

from tests.training.test_data import write
from wsi_minugan.errors import DataError

NUCLEUS = (slice(50, 61), slice(70, 91))


def nucleus(root: Path, kind: TruthKind, **changes: object) -> Entry:
    """Write an image of 120 x 100 px with one nucleus, as an instance map or in XML."""
    write(root / "a.png", np.full((100, 120, 3), 200, np.uint8))
    instances = np.zeros((100, 120), np.uint16)
    instances[NUCLEUS] = 7
    write(root / "a-instances.png", instances)
    corners = ((70, 50), (90, 50), (90, 60), (70, 60))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    (root / "a.xml").write_text(f"<A><Region><Vertices>{vertices}</Vertices></Region></A>")
    fields: dict[str, object] = {
        "dataset": "monuseg", "image": "a.png", "width_px": 120, "height_px": 100, "mpp": 0.25, "patient": "p",
        "mitoses": "unknown", "nuclei": "known", "nuclei_kind": kind,
        "nuclei_truth": "a.xml" if kind == "monuseg-xml" else "a-instances.png",
    }  # fmt: skip
    return Entry.model_validate(fields | changes)


@pytest.mark.parametrize("kind", ["instances", "monuseg-xml"])
def test_nuclei_follow_the_region(kind: TruthKind, tmp_path: Path) -> None:
    entry = nucleus(tmp_path, kind, x_px=60, y_px=45, width_px=40, height_px=30)
    expected = np.zeros((30, 40), bool)
    expected[5:16, 10:31] = True
    instances = read_instances(tmp_path, entry)
    assert instances is not None
    assert np.array_equal(instances > 0, expected)
    assert np.array_equal(load_sample(tmp_path, entry).labels[..., NUCLEI] == 1, expected)


@pytest.mark.parametrize("mpp", [0.5, 0.2273, 0.33, 0.375])
@pytest.mark.parametrize("kind", ["instances", "monuseg-xml"])
def test_instances_have_their_samples_resolution(kind: TruthKind, mpp: float, tmp_path: Path) -> None:
    entry = nucleus(tmp_path, kind, mpp=mpp, x_px=60, y_px=45, width_px=41, height_px=31)
    sample, instances = load_sample(tmp_path, entry), read_instances(tmp_path, entry)
    assert instances is not None
    assert instances.shape == sample.image.shape[:2]
    assert np.array_equal(instances > 0, sample.labels[..., NUCLEI] == 1)
    assert len(np.unique(instances)) == 2


@pytest.mark.parametrize("mpp", [0.2273, 0.2, 0.5])
def test_labels_lie_on_what_they_label_at_every_resolution(mpp: float, tmp_path: Path) -> None:
    entry = nucleus(tmp_path, "instances", mpp=mpp)
    ramp = np.add.outer(np.arange(100), np.arange(120)).astype(np.uint16)
    write(tmp_path / "a.png", np.dstack([ramp.astype(np.uint8)] * 3))
    image = load_sample(tmp_path, entry).image[..., 0].astype(float)
    assert abs((in_samples_pixels(ramp, entry) - image).mean()) < 0.3


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.2])
def test_weak_outlines_are_of_one_size_in_micrometres(mpp: float, tmp_path: Path) -> None:
    told = {"mitoses": "known", "mitoses_kind": "points", "mitoses_truth": "60 50", "nuclei": "unknown"}
    sample = load_sample(tmp_path, nucleus(tmp_path, "", nuclei_truth="", mpp=mpp, **told))
    ys, xs = np.nonzero(sample.labels[..., MITOSES] == 1)
    assert len(ys) == pytest.approx(np.pi * FALLBACK_PX**2, rel=0.1)
    assert (xs.mean() + 0.5, ys.mean() + 0.5) == pytest.approx((60 * mpp / 0.25, 50 * mpp / 0.25), abs=1)


def test_no_mitosis_is_looked_for_where_nothing_is_known(tmp_path: Path) -> None:
    told = {"mitoses": "known", "mitoses_kind": "points", "mitoses_truth": "30 40;80 55", "nuclei": "unknown"}
    entry = nucleus(tmp_path, "", nuclei_truth="", ignore="a-instances.png", **told)
    sample = load_sample(tmp_path, entry)
    assert mitosis_truth(tmp_path, entry, sample).tolist() == [[30, 40]]
    assert (sample.labels[NUCLEUS] == IGNORE).all()


def test_listed_pixels_follow_the_region(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("70,50,71,50\n5,5\n")
    told = {"mitoses": "known", "mitoses_kind": "pixel-lists", "mitoses_truth": "a.csv", "nuclei": "unknown"}
    entry = nucleus(tmp_path, "", x_px=60, y_px=45, width_px=40, height_px=30, nuclei_truth="", **told)
    ys, xs = np.nonzero(load_sample(tmp_path, entry).labels[..., MITOSES] == 1)
    assert list(zip(xs.tolist(), ys.tolist(), strict=True)) == [(10, 5), (11, 5)]


def test_truth_that_is_no_outline_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"odd\.csv cannot be read"):
        read_pixel_lists(tmp_path / "odd.csv", (9, 9))
    (tmp_path / "bare.xml").write_text("<A><Region><Vertex X='1'/></Region></A>")
    with pytest.raises(DataError, match=r"bare\.xml cannot be read"):
        read_monuseg_xml(tmp_path / "bare.xml", (9, 9))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_an_image_that_is_cut_short_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8))
    assert read_rgb(path).shape == (60, 70, 3)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 10])
    with pytest.raises(DataError, match=r"Copy it again"):
        read_rgb(path)


def test_a_tiff_of_more_than_8_bits_is_refused_and_not_wrapped_around(tmp_path: Path) -> None:
    for kind in (np.uint16, np.float32):
        tifffile.imwrite(tmp_path / "a.tif", np.full((9, 9, 3), 300, kind), photometric="rgb")
        with pytest.raises(DataError, match=f"values of {kind.__name__}; save it with 8 bits"):
            read_rgb(tmp_path / "a.tif")


def test_a_tiff_that_holds_its_colours_one_after_another_is_read_as_any(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 70, 3), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_rgb(path), image)
