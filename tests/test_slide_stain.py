"""One stain a slide: estimated from its tissue alone, moved by one map, told in the manifest, and the same however it is cut."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import tifffile
import torch
import zarr
from minugan_jobs.run import check_card

from wsi_minugan import analyze, load_model, predict, schemas, stain_map
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError, ModelError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import BUNDLED, CARD, load_bundle
from wsi_minugan.minugan.card import StainNormalisation
from wsi_minugan.minugan.scoring import restained
from wsi_minugan.minugan.stain import StainMap, StainStatistics, map_between, slide_stain
from wsi_minugan.pipeline.ground import reliability_of
from wsi_minugan.pipeline.plan import SlidePlan, open_reader, plan_slide
from wsi_minugan.pipeline.planning.plan_file import load_plan, save_plan
from wsi_minugan.pipeline.planning.slide_stain import StainWish, stain_wish
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

pytestmark = pytest.mark.slow  # each test reads a drawn slide

SIDE = 1536
TARGET = StainStatistics(mean=(0.5, 0.25, 0.05), spread=(0.25, 0.1, 0.05))
WIDE = (
    StainStatistics(mean=(-1, -1, -1), spread=(0.001,) * 3),
    StainStatistics(mean=(3,) * 3, spread=(3,) * 3),
)


def known(target: StainStatistics = TARGET, **other: Any) -> StainNormalisation:
    """Return what a card says of stains, by default with bounds that hold all of them."""
    return StainNormalisation(**{"target": target, "low": WIDE[0], "high": WIDE[1], "slides": 9, **other})


def model(folder: Path, stain: StainNormalisation | None) -> Path:
    """Return the bundled model with another card."""
    shutil.copytree(BUNDLED / "default", folder)
    text = json.loads((folder / CARD).read_text())
    text["stain"] = None if stain is None else stain.model_dump()
    (folder / CARD).write_text(json.dumps(text))
    return folder


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return SyntheticSlide(SIDE, SIDE, seed=3, mitoses=4).draw(Box(0, 0, SIDE, SIDE))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "small.tiff"
    write_slide(path, SyntheticSlide(700, 400, seed=4, mitoses=3, tissue_fraction=0.7))
    return path


def planned(image: np.ndarray, folder: Path, wish: StainWish | None, **settings: Any) -> SlidePlan:
    """Return the plan of an image as a slide."""
    path, chosen = folder / "a.tiff", RunSettings(**settings)
    tifffile.imwrite(
        path,
        image,
        tile=(256, 256),
        photometric="rgb",
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )
    reader = open_reader(path, chosen)
    plan = plan_slide(SlideInput("a", path), reader, chosen, 0.25, wish)
    reader.close()
    return plan


def inked(image: np.ndarray) -> np.ndarray:
    """Draw a broad line of green marker across the tissue."""
    return cv2.line(image.copy(), (0, SIDE // 2), (SIDE, SIDE // 2), (20, 120, 60), 180)


def bloody(image: np.ndarray) -> np.ndarray:
    """Flood parts of the tissue with erythrocytes."""
    out = image.copy()
    for x, y in ((500, 500), (1000, 600), (700, 1100)):
        cv2.circle(out, (x, y), 80, (225, 110, 120), -1)
    return out


def blacked(image: np.ndarray) -> np.ndarray:
    """Paint a border black, as scanners do with what they left out, and drop black dirt everywhere."""
    out = image.copy()
    out[:, :450] = 14
    for k in range(200, SIDE, 120):
        cv2.circle(out, (k, SIDE - k), 20, (10, 8, 12), -1)
    return out


@pytest.mark.parametrize("spoil", [inked, bloody, blacked])
def test_ink_blood_and_black_do_not_change_a_slides_stain(
    spoil: Any, drawn: np.ndarray, tmp_path: Path
) -> None:
    wish = StainWish(known(), True)
    plain, spoilt = (planned(i, tmp_path, wish).stain for i in (drawn, spoil(drawn)))
    assert plain is not None and spoilt is not None
    assert spoilt.own.mean == pytest.approx(plain.own.mean, abs=0.02)
    assert spoilt.own.spread == pytest.approx(plain.own.spread, abs=0.02)


def test_the_stain_is_the_slides_whatever_blocks_stride_and_regions_are(
    drawn: np.ndarray, tmp_path: Path
) -> None:
    ring = [[300, 300], [900, 300], [900, 900], [300, 900], [300, 300]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "r.geojson").write_text(json.dumps(feature))
    wish = StainWish(known(), True)
    found = [
        planned(drawn, tmp_path, wish, **s)
        for s in ({}, {"block_px": 512, "stride_px": 128}, {"region": tmp_path / "r.geojson"})
    ]
    assert found[0].stain == found[1].stain == found[2].stain
    save_plan(tmp_path, found[0])
    assert load_plan(tmp_path).stain == found[0].stain


def test_the_map_brings_a_slide_to_the_target_and_leaves_one_that_is_there_as_it_is(
    drawn: np.ndarray,
) -> None:
    patches = [drawn[y : y + 256, x : x + 256] for y in range(300, 1200, 256) for x in range(300, 1200, 256)]
    own = slide_stain(patches)
    assert own is not None
    pixels = torch.from_numpy(np.stack(patches))
    assert torch.equal(restained(pixels, map_between(own, own)), pixels)
    moved = slide_stain(list(restained(pixels, map_between(own, TARGET)).numpy()))
    assert moved is not None
    assert moved.mean == pytest.approx(TARGET.mean, abs=0.02)
    assert moved.spread == pytest.approx(TARGET.spread, abs=0.02)


def test_white_stays_white_and_a_pixel_depends_on_itself_alone() -> None:
    how = StainMap(((1.4, 0.1, 0), (0, 0.7, 0.1), (0.1, 0, 1.2)), (0.2, -0.1, 0.1))
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    colours[0] = 255
    whole = restained(torch.from_numpy(colours), how).numpy()
    assert (whole[0] == 255).all()
    assert np.array_equal(
        restained(torch.from_numpy(colours[5:9, 7:10].copy()), how).numpy(), whole[5:9, 7:10]
    )


def results(folder: Path) -> dict[str, Any]:
    """Return what must not depend on the cutting."""
    arrays = ("labels/classes/0", "labels/mitoses/0", "labels/nuclei/0", "mitosis_score/0")
    masks = {n: np.asarray(zarr.open_array(folder / "masks.zarr" / n, mode="r")).tobytes() for n in arrays}
    return masks | {n: (folder / n).read_bytes() for n in ("mitoses.geojson", "nuclei.parquet", "count.json")}


def test_a_normalised_slide_gives_the_same_bytes_in_blocks_of_any_size(small: Path, tmp_path: Path) -> None:
    made = model(tmp_path / "model", known(switched_on=True))
    for px in (512, 1024):
        analyze(small, model=made, out=tmp_path / str(px), block_px=px)
    assert results(tmp_path / "512") == results(tmp_path / "1024")
    manifest = json.loads((tmp_path / "512" / "manifest.json").read_text())
    jsonschema.Draft202012Validator(
        json.loads((schemas.FOLDER / "manifest.schema.json").read_text())
    ).validate(manifest)
    assert manifest["stain"]["applied"] is True
    own = StainStatistics(mean=manifest["stain"]["mean"], spread=manifest["stain"]["spread"])
    assert np.allclose(manifest["stain"]["matrix"], map_between(own, TARGET).matrix)


def test_the_card_decides_unless_the_user_does(drawn: np.ndarray, tmp_path: Path) -> None:
    card = load_bundle(BUNDLED / "default").card
    off, on = (card.model_copy(update={"stain": known(switched_on=k)}) for k in (False, True))
    wishes = {(k, s): stain_wish((off, on)[k], s) for k in (0, 1) for s in ("auto", "none", "always")}
    assert {k for k, w in wishes.items() if w is not None and w.applied} == {
        (0, "always"),
        (1, "auto"),
        (1, "always"),
    }
    # Errors were measured as the card's switch says, so they make no interval for the other way.
    assert {(k, s) for k, s in wishes if reliability_of((off, on)[k], None, stain=s).patients} == {
        (0, "auto"), (0, "none"), (1, "auto"), (1, "always"),
    }  # fmt: skip
    # Without a map patches reach the network as they were read, so results are those of a card that knows no stain.
    plan = planned(drawn, tmp_path, wishes[0, "auto"])
    assert plan.stain is not None
    assert plan.stain_map is None


def test_a_model_without_a_target_is_refused_where_normalisation_is_asked_for(small: Path) -> None:
    bundle = load_bundle(BUNDLED / "default")
    assert stain_wish(bundle.card.model_copy(update={"stain": None}), "none") is None
    bare = bundle.card.model_copy(update={"stain": None})
    with pytest.raises(ModelError, match="no target stain"):
        stain_wish(bare, "always")
    with pytest.raises(ModelError, match="no operating point"):
        check_card(
            type(bundle)(bundle.path, bare.model_copy(update={"operating_points": {}})),
            RunSettings(operating_point="specific"),
        )


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, None),
        ({"low": StainStatistics(mean=(0.9, -1, -1), spread=WIDE[0].spread)}, "haematoxylin is paler"),
        ({"high": StainStatistics(mean=(3, 0.01, 3), spread=WIDE[1].spread)}, "eosin is darker"),
        ({"high": StainStatistics(mean=WIDE[1].mean, spread=(0.01, 3, 3))}, "haematoxylin is less even"),
    ],
)
def test_a_stain_that_training_did_not_see_is_told(
    limits: dict[str, Any], told: str | None, drawn: np.ndarray, tmp_path: Path
) -> None:
    found = planned(drawn, tmp_path, StainWish(known(**limits), False)).warnings
    sentences = [w for w in found if "stain" in w]
    assert len(sentences) == (told is not None)
    assert all(told in s for s in sentences if told)


def test_patches_in_memory_are_brought_to_the_target_by_the_map_of_their_slide(
    drawn: np.ndarray, tmp_path: Path
) -> None:
    loaded = load_model(model(tmp_path / "model", known()))
    tissue = drawn[400:1000, 400:1000]
    how = stain_map([tissue], loaded)
    moved = restained(torch.from_numpy(tissue.copy()), how).numpy()
    assert np.array_equal(predict(tissue[:300, :300], loaded, stain=how), predict(moved[:300, :300], loaded))
    with pytest.raises(InputError, match="No patch holds enough tissue"):
        stain_map([np.full((256, 256, 3), 240, np.uint8)], loaded)
