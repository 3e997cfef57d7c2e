"""Places that were restored around mitoses are found by their colours, and levelled."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from minugan_training.cli.main import app
from minugan_training.data.check import problems_of
from minugan_training.data.colours import sharpness_of
from minugan_training.data.images import soften_colours
from minugan_training.data.index import Entry, points_text, write_index
from minugan_training.data.labels import load_sample

from tests.training.test_data import write

SIDE_PX = 1200
CENTRES = [(x, y) for x in range(150, 1100, 180) for y in range(150, 1100, 180)]


def field(folder: Path, *, restored: bool, colours: str = "") -> Entry:
    """A noisy image with blurred colours; around its mitoses it has, if `restored`, those that it had before."""
    noise = np.random.default_rng(1).integers(0, 256, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.0)
    stored = soften_colours(image, 1.2)
    if restored:
        for x, y in CENTRES:
            part = np.s_[y - 50 : y + 51, x - 50 : x + 51]
            stored[part] = image[part]
    write(folder / "a.png", stored)
    return Entry(
        dataset="d", image="a.png", width_px=SIDE_PX, height_px=SIDE_PX, mpp=0.25, patient="p", mitoses="known",
        mitoses_kind="points", mitoses_truth=points_text(CENTRES), nuclei="unknown", colours=colours,
    )  # fmt: skip


@pytest.mark.parametrize(("restored", "telling"), [(True, True), (False, False)])
def test_colours_tell_of_restored_places_and_of_no_others(
    restored: bool, telling: bool, tmp_path: Path
) -> None:
    entry = field(tmp_path, restored=restored)
    chance = sharpness_of(tmp_path, [entry])["d"].chance
    assert (chance > 0.95) == telling
    found = problems_of(tmp_path, [entry])
    assert [("sharper than elsewhere" in text, '"uneven"' in text) for text in found] == [
        (True, True)
    ] * telling


def test_levelled_colours_tell_less_and_brightness_stays(tmp_path: Path) -> None:
    entry = field(tmp_path, restored=True, colours="uneven")
    read, stored = (sharpness_of(tmp_path, [entry], as_stored=s)["d"] for s in (False, True))
    assert np.median(stored.at_mitoses) > 2 * np.median(stored.elsewhere)
    assert np.median(read.at_mitoses) < 1.3 * np.median(read.elsewhere)
    assert problems_of(tmp_path, [entry]) == []
    levelled, plain = (
        load_sample(tmp_path, e).image.astype(float) @ (0.299, 0.587, 0.114)
        for e in (entry, entry.model_copy(update={"colours": ""}))
    )
    assert np.abs(levelled - plain)[100:-100, 100:-100].mean() < 1.5


def test_few_mitoses_or_small_images_tell_nothing(tmp_path: Path) -> None:
    entry = field(tmp_path, restored=True)
    few = entry.model_copy(update={"mitoses_truth": points_text(CENTRES[:5])})
    assert sharpness_of(tmp_path, [few])["d"].chance == 0.5
    assert sharpness_of(tmp_path, [entry.model_copy(update={"width_px": 100})]) == {}


def test_the_command_tells_both_as_stored_and_as_read(tmp_path: Path) -> None:
    write_index(tmp_path / "index.csv", [field(tmp_path, restored=True, colours="uneven")])
    done = CliRunner().invoke(app, ["data", "colours", str(tmp_path / "index.csv"), "--root", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "d, as stored:" in done.output
    assert "d, as read:" in done.output
    assert done.output.count("chance to tell them apart") == 2
