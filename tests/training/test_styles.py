"""A patch in another slide's stain densities has that slide's colours, and its own nuclei."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from minugan_training.data.labels import IGNORE, MITOSES, Sample
from minugan_training.sampling.augmentation import Patch, cut_patch
from minugan_training.sampling.sampler import Sampler
from minugan_training.sampling.stain_transfer import stain_statistics_of, transfer_stain
from minugan_training.settings import Augmentation, load_experiment

from tests.training.test_data import drawn, experiment, pool
from wsi_minugan.errors import SettingsError
from wsi_minugan.minugan.stain import STAINS, UNMIX, StainStatistics


def stained(factor: float, seed: int = 0) -> Sample:
    """Return noise of haematoxylin and eosin, `factor` times as dense, on a white ground."""
    rng = np.random.default_rng(seed)
    density = np.zeros((120, 120, 3), np.float32)
    density[20:, :, :2] = factor * rng.uniform(0.3, 0.7, (100, 120, 2))
    image = np.clip(256 * np.exp(-(density @ STAINS)) - 1, 0, 255).astype(np.uint8)
    return Sample(image, np.zeros((120, 120, 3), np.uint8), 0.25)


def statistics(sample: Sample) -> StainStatistics:
    found = stain_statistics_of([sample])
    assert found is not None
    return found


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_tissue_takes_the_other_slides_densities_and_the_ground_stays(factor: float) -> None:
    own, other = stained(1.0), stained(factor, seed=1)
    found = transfer_stain(own.image, statistics(own), statistics(other))
    moved = statistics(Sample(found, own.labels, 0.25))
    assert np.allclose(moved.mean[:2], statistics(other).mean[:2], rtol=0.06)
    assert np.allclose(moved.spread[:2], statistics(other).spread[:2], rtol=0.1)
    assert np.array_equal(found[:20], own.image[:20])


def test_the_order_of_densities_stays() -> None:
    own, other = stained(1.0), stained(1.5, seed=1)
    found = transfer_stain(own.image, statistics(own), statistics(other))
    before, after = (
        (-np.log((i[30:].astype(np.float32) + 1) / 256) @ UNMIX[:, 0]).ravel() for i in (own.image, found)
    )
    assert np.corrcoef(before, after)[0, 1] > 0.98


def test_a_slides_own_style_changes_nothing() -> None:
    image = drawn()[0]
    own = statistics(Sample(image, np.zeros_like(image), 0.25))
    assert np.abs(transfer_stain(image, own, own).astype(int) - image).max() <= 1


def test_paint_has_no_part_in_a_style() -> None:
    plain, painted = stained(1.0), stained(1.0)
    painted.image[50:100] = (255, 220, 0)
    painted.labels[50:100] = IGNORE
    assert np.allclose(statistics(plain).mean, statistics(painted).mean, atol=0.03)


def test_a_slide_without_tissue_has_no_style() -> None:
    white = np.full((60, 60, 3), 255, np.uint8)
    assert stain_statistics_of([Sample(white, np.zeros_like(white), 0.25)]) is None
    assert stain_statistics_of([]) is None


def test_a_batch_in_other_styles_has_the_same_labels(tmp_path: Path) -> None:
    p = pool(tmp_path)
    first, second = (
        Sampler(p, experiment(augmentation={"stain_transfer": share, "rotate": False})).batch(5).labels
        for share in (0.0, 1.0)
    )
    assert np.array_equal(first[0], second[0])


def test_a_reduced_patch_has_lost_what_20x_does_not_show() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 255
    sample = Sample(image, np.zeros_like(image), 0.25)
    change = Augmentation(rotate=False, reduce=1.0)
    found, _ = cut_patch(sample, (32.0, 32.0), 64, change, np.random.default_rng(0))
    assert found.std() < 0.6 * image.std()


def test_compression_keeps_each_colour_where_it_was() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 200
    sample = Sample(image, np.zeros_like(image), 0.25)
    found, _ = cut_patch(
        sample, (32.0, 32.0), 64, Augmentation(rotate=False, jpeg=1.0), np.random.default_rng(0)
    )
    assert np.abs(found.astype(int) - image).max() <= 4


def plain(**shares: float) -> Augmentation:
    return Augmentation(rotate=False, **shares)


def nuclei(seed: int = 0) -> Sample:
    """Return noise in which every pixel is known, with a mitosis of 9 by 9 px in its middle."""
    image = np.random.default_rng(seed).integers(90, 200, (300, 300, 3)).astype(np.uint8)
    labels = np.zeros_like(image)
    labels[146:155, 146:155, MITOSES] = 1
    return Sample(image, labels, 0.25)


def cut(sample: Sample, change: Augmentation, seed: int = 0) -> Patch:
    return cut_patch(sample, (150.0, 150.0), 128, change, np.random.default_rng(seed))


def test_an_image_compressed_first_has_the_same_labels_and_the_blurred_colours_of_its_scanner() -> None:
    sample = nuclei()
    (before, labels), (after, same) = cut(sample, plain()), cut(sample, plain(compressed=1.0))
    assert np.array_equal(labels, same)
    assert np.abs(before.astype(int).mean(axis=2) - after.mean(axis=2)).mean() < 25
    red_less_blue = [i[..., 0].astype(int) - i[..., 2] for i in (before, after)]
    assert red_less_blue[1].std() < 0.8 * red_less_blue[0].std()


def test_a_crop_shows_its_place_and_nothing_is_known_beyond_it() -> None:
    sample, far = nuclei(), plain(shift_px=30.0)
    (whole, labels), (crop, told) = cut(sample, far), cut(sample, far.model_copy(update={"crop": 1.0}))
    known = (told != IGNORE).all(axis=2)
    assert 0.3 < known.mean() < 1
    assert np.array_equal(told[known], labels[known])
    inner = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
    # OpenCV's places between pixels are counted from the crop's corner: to 1/32 px.
    assert np.abs(crop[inner].astype(int) - whole[inner]).max() <= 8
    assert not np.array_equal(crop[~known], whole[~known])


@pytest.mark.parametrize("seed", range(8))
def test_bare_ground_has_no_nucleus_and_what_it_leaves_of_a_mitosis_is_unknown(seed: int) -> None:
    sample = nuclei()
    (before, labels), (after, told) = cut(sample, plain(), seed), cut(sample, plain(ground=1.0), seed)
    bare = (np.abs(after.astype(int) - after.reshape(-1, 3).max(axis=0)) <= 1).all(axis=2)
    assert 0.02 < bare.mean() < 0.65
    assert (told[bare] == 0).all()
    left = labels[..., MITOSES] == 1
    assert set(np.unique(told[left, MITOSES])) in ({1}, {0, IGNORE}, {0})
    kept = ~(bare | left)
    assert np.array_equal(told[kept], labels[kept])
    assert (before[kept] == after[kept]).mean() > 0.5


@pytest.mark.parametrize(
    "change", ["scale: [1.2, 0.8]", "scale: [0, 1]", "blur: 0.6, reduce: 0.6", "shift_px: -1"]
)
def test_changes_that_make_no_sense_are_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    sources = "sources: [{datasets: [a], at: mitoses, per_batch: 1}]"
    path.write_text(f"{{name: e, steps: 1, {sources}, augmentation: {{{change}}}}}")
    with pytest.raises(SettingsError, match="does not fit"):
        load_experiment(path)


def test_a_mosaic_of_an_odd_size_is_whole(tmp_path: Path) -> None:
    sources = [{"datasets": ["rgb"], "at": "anywhere", "per_batch": 2, "mosaic": 1.0}]
    e = experiment(sources=sources, consistency={"weight": 1.0, "shift_px": 5})
    for step in range(12):
        assert Sampler(pool(tmp_path), e).batch(step).images.shape == (4, 3, 64, 64)
