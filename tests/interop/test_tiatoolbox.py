"""The model in TIAToolbox's engine, results in its annotation store, its stain normalisers; make test-tiatoolbox."""

import importlib.util
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
import zarr

# Only where it is not installed: one that is installed and cannot be imported is a failure.
if importlib.util.find_spec("tiatoolbox") is None:
    pytest.skip("needs the extra [tiatoolbox]: make test-tiatoolbox", allow_module_level=True)

from tiatoolbox.annotation import SQLiteStore
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.tools.stainnorm import get_normalizer

from wsi_minugan import Result, open_slide, predict
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Box
from wsi_minugan.interop import tiatoolbox_model
from wsi_minugan.interop.tiatoolbox_model import CLASS_NAMES, MinuganModel
from wsi_minugan.interop.tiatoolbox_stain import fit_normalizer
from wsi_minugan.outputs.exports.files import write_annotation_store
from wsi_minugan.outputs.exports.objects import open_slide_folder

pytestmark = pytest.mark.tiatoolbox

STORES = pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "enable_load_extension"),
    reason="TIAToolbox's store needs a Python whose sqlite3 loads extensions, such as Debian's",
)


@pytest.fixture(scope="module")
def model() -> MinuganModel:
    return MinuganModel()


@pytest.fixture(scope="module")
def patches(slide: Path) -> np.ndarray:
    """Return the patches of the whole slide, white where they reach beyond it; row by row."""
    reader = open_slide(slide)
    boxes = [Box(y, x, 256, 256) for y in range(0, 1300, 256) for x in range(0, 1500, 256)]
    return np.stack([reader.read_level(0, box) for box in boxes])


@pytest.fixture(scope="module")
def scores(patches: np.ndarray) -> np.ndarray:
    """Return our own scores of these patches."""
    return predict(patches)


def laid_out(of_patches: np.ndarray) -> np.ndarray:
    """Return what belongs to the patches of the slide as one picture."""
    rows = of_patches.reshape(6, 6, 256, 256, *of_patches.shape[3:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])[:1300, :1500]


def test_patches_get_the_scores_and_classes_that_they_get_here(
    model: MinuganModel, patches: np.ndarray, scores: np.ndarray
) -> None:
    engine = SemanticSegmentor(model, batch_size=4, verbose=False)
    out = engine.run(patches[:12], patch_mode=True, ioconfig=model.io_config(), return_probabilities=True)
    levels = 255 * np.asarray(out["probabilities"]).transpose(0, 3, 1, 2)
    assert np.abs(levels - scores[:12]).max() < 0.01
    expected = [model._class_map(s.transpose(1, 2, 0) / 255) for s in scores[:12]]
    assert np.array_equal(out["predictions"], expected)
    assert {0, 1, 2} == set(np.unique(expected))


def test_a_whole_slide_gets_the_scores_of_its_patches(
    model: MinuganModel, slide: Path, scores: np.ndarray, tmp_path: Path
) -> None:
    engine = SemanticSegmentor(model, batch_size=8, verbose=False)
    out = engine.run(
        [slide],
        patch_mode=False,
        ioconfig=model.io_config(stride_px=256),
        save_dir=tmp_path / "out",
        auto_get_mask=False,
        output_type="zarr",
        return_probabilities=True,
    )
    found = zarr.open_group(out[slide], mode="r")
    expected = laid_out(scores.transpose(0, 2, 3, 1))
    assert np.abs(255 * np.asarray(found["probabilities"]) - expected).max() < 0.01
    assert np.array_equal(np.asarray(found["predictions"]), model._class_map(expected / 255))


def test_how_a_slide_is_cut_does_not_change_its_classes(
    model: MinuganModel, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = laid_out(scores.transpose(0, 2, 3, 1)) / np.float32(255)
    monkeypatch.setattr(tiatoolbox_model, "_TILE_PX", 512)
    tiled = model.postproc(whole)
    assert tiled.numblocks == (3, 3)
    assert np.array_equal(tiled.compute(), model._class_map(whole))


@STORES
def test_the_engines_store_names_classes_and_finds_the_mitoses_of_a_run(
    model: MinuganModel, slide: Path, opened: Path, tmp_path: Path
) -> None:
    engine = SemanticSegmentor(model, batch_size=8, verbose=False)
    out = engine.run(
        [slide],
        patch_mode=False,
        ioconfig=model.io_config(),
        save_dir=tmp_path / "out",
        auto_get_mask=False,
        output_type="annotationstore",
    )
    found = SQLiteStore.open(out[slide]).values()
    assert {a.properties["type"] for a in found} == {CLASS_NAMES[1], CLASS_NAMES[2]}
    theirs = shapely.union_all([a.geometry for a in found if a.properties["type"] == "Mitosis"])
    ours = Result.open(opened).mitoses
    assert len(ours) > 0
    assert shapely.intersects(theirs, ours.geometry.to_numpy()).mean() > 0.9


@STORES
def test_an_exported_store_holds_every_object_with_its_class_and_score(opened: Path, tmp_path: Path) -> None:
    count = write_annotation_store(open_slide_folder(opened), tmp_path / "slide.db")
    store, result = SQLiteStore.open(tmp_path / "slide.db"), Result.open(opened)
    assert len(store) == count
    kinds = Counter(a.properties["type"] for a in store.values())
    assert (kinds["Mitosis"], kinds["Nucleus"]) == (len(result.mitoses), len(result.nuclei))
    mitoses = {k: a for k, a in store.items() if a.properties["type"] == "Mitosis"}
    peaks = sorted(a.properties["peak_score"] for a in mitoses.values())
    assert peaks == pytest.approx(sorted(result.mitoses.peak_score), abs=1e-4)
    key, first = next(iter(mitoses.items()))
    assert key in store.query(first.geometry.bounds, where='props["type"] == "Mitosis"')


def stained(rows: tuple[tuple[float, ...], tuple[float, ...]], seed: int) -> np.ndarray:
    """Return a picture of two stains with these optical densities in R, G, B."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(2, 0.4, (256, 256, 2)) * random.choice([0.2, 1], (256, 256, 2))
    return np.clip(255 * np.exp(-amounts @ np.array(rows)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard"])
def test_a_normaliser_fitted_to_a_patch_gives_what_tiatoolbox_gives_for_it(method: str) -> None:
    target = stained(((0.6, 0.7, 0.3), (0.1, 0.9, 0.3)), seed=1)
    source = stained(((0.5, 0.8, 0.4), (0.2, 0.7, 0.2)), seed=2)
    theirs = get_normalizer(method)
    theirs.fit(target.copy())
    expected = theirs.transform(source.copy()).astype(int)
    before = source.copy()
    normalise = fit_normalizer(method, source, target)
    assert np.abs(normalise(source) - expected).max() <= 1
    assert np.abs(expected - source).max() > 20
    assert np.array_equal(source, before)


def test_all_patches_of_a_slide_go_through_the_same_map() -> None:
    target = stained(((0.6, 0.7, 0.3), (0.1, 0.9, 0.3)), seed=1)
    source = stained(((0.5, 0.8, 0.4), (0.2, 0.7, 0.2)), seed=2)
    normalise = fit_normalizer("macenko", source, target)
    assert np.array_equal(normalise(source)[:64, :64], normalise(source[:64, :64]))
    theirs = get_normalizer("macenko")
    theirs.fit(target.copy())
    assert not np.array_equal(
        theirs.transform(source.copy())[:64, :64], theirs.transform(source[:64, :64].copy())
    )


def test_a_normaliser_works_before_the_model_in_the_engine(model: MinuganModel, patches: np.ndarray) -> None:
    normalise = fit_normalizer("macenko", patches.reshape(-1, 256, 3), patches[7])
    engine = SemanticSegmentor(model, batch_size=4, verbose=False)
    model.preproc_func = normalise
    try:
        out = engine.run(patches[:4], patch_mode=True, ioconfig=model.io_config(), return_probabilities=True)
    finally:
        model.preproc_func = None
    expected = predict(normalise(patches[:4])).transpose(0, 2, 3, 1)
    assert np.abs(255 * np.asarray(out["probabilities"]) - expected).max() < 0.01


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_picture_without_tissue_is_refused(method: str, patches: np.ndarray) -> None:
    with pytest.raises(InputError, match="full of H&E tissue"):
        fit_normalizer(method, np.full((64, 64, 3), 255, np.uint8), patches[7])
