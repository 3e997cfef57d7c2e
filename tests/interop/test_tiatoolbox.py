"""The model in TIAToolbox's engine, results in its annotation store, its stain normalisers; make test-tiatoolbox."""

import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
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

from wsi_minugan import Result, analyze, open_slide, predict
from wsi_minugan.config import PATCH_PX
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import Box
from wsi_minugan.interop import tiatoolbox_model
from wsi_minugan.interop.tiatoolbox_model import MinuganModel
from wsi_minugan.interop.tiatoolbox_stain import fit_normalizer
from wsi_minugan.minugan.bundle import BUNDLED, load_bundle
from wsi_minugan.outputs.exports.files import write_annotation_store
from wsi_minugan.outputs.exports.objects import open_slide_folder
from wsi_minugan.segmentation.objects import label_objects
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

pytestmark = pytest.mark.tiatoolbox

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "tiatoolbox.md"

STORES = pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "enable_load_extension"),
    reason="TIAToolbox's store needs a Python whose sqlite3 loads extensions, such as Debian's",
)


WIDTH, HEIGHT = 1000, 900
SIDE = PATCH_PX * load_bundle(BUNDLED / "default").card.patches_across
COLUMNS, ROWS = -(-WIDTH // SIDE), -(-HEIGHT // SIDE)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.tiff"
    write_slide(path, SyntheticSlide(WIDTH, HEIGHT, seed=4, mitoses=9))
    return path


@pytest.fixture(scope="module")
def result(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return analyze(slide, out=tmp_path_factory.mktemp("result") / "slide")


@pytest.fixture(scope="module")
def model() -> MinuganModel:
    """Return the model with patches side by side, so that the engine's are those of these tests."""
    return MinuganModel(stride_px=256)


@pytest.fixture(scope="module")
def patches(slide: Path) -> np.ndarray:
    """Return the patches of the whole slide, white where they reach beyond it; row by row."""
    reader = open_slide(slide)
    boxes = [Box(SIDE * y, SIDE * x, SIDE, SIDE) for y in range(ROWS) for x in range(COLUMNS)]
    return np.stack([reader.read_level(0, box) for box in boxes])


@pytest.fixture(scope="module")
def scores(patches: np.ndarray) -> np.ndarray:
    """Return our own scores of these patches, channels last."""
    return predict(patches).transpose(0, 2, 3, 1)


def most_tissue(patches: np.ndarray) -> np.ndarray:
    """Return the darkest patch."""
    return patches[patches.mean(axis=(1, 2, 3)).argmin()]


def laid_out(scores: np.ndarray) -> np.ndarray:
    """Return the scores of the slide's patches as one picture, 0 to 1."""
    rows = scores.reshape(ROWS, COLUMNS, SIDE, SIDE, 3)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])[:HEIGHT, :WIDTH] / np.float32(
        255
    )


def run_engine(model: MinuganModel, slide: Path, folder: Path, **how: object) -> Path:
    """Run TIAToolbox's engine over a whole slide, and return the file it writes."""
    engine = SemanticSegmentor(model, batch_size=8, verbose=False)
    options = {"patch_mode": False, "auto_get_mask": False, "ioconfig": model.io_config(), "save_dir": folder}
    return engine.run([slide], **options, **how)[slide]


def test_patches_get_the_scores_and_classes_that_they_get_here(
    model: MinuganModel, patches: np.ndarray, scores: np.ndarray
) -> None:
    engine = SemanticSegmentor(model, batch_size=4, verbose=False)
    out = engine.run(patches, patch_mode=True, ioconfig=model.io_config(), return_probabilities=True)
    assert np.abs(255 * np.asarray(out["probabilities"]) - scores).max() < 0.01
    expected = [model._class_map(s / 255) for s in scores]
    assert np.array_equal(out["predictions"], expected)
    assert set(np.unique(expected)) == {0, 1, 2}


def test_a_whole_slide_gets_the_scores_of_its_patches(
    model: MinuganModel, slide: Path, scores: np.ndarray, tmp_path: Path
) -> None:
    path = run_engine(model, slide, tmp_path / "out", output_type="zarr", return_probabilities=True)
    found, expected = zarr.open_group(path, mode="r"), laid_out(scores)
    assert np.abs(np.asarray(found["probabilities"]) - expected).max() < 0.01 / 255
    assert np.array_equal(np.asarray(found["predictions"]), model._class_map(expected))


def test_how_a_slide_is_cut_does_not_change_its_classes(
    model: MinuganModel, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiatoolbox_model, "_TILE_PX", 320)
    tiled = model.postproc(laid_out(scores))
    assert tiled.numblocks == (3, 3)
    assert np.array_equal(tiled.compute(), model._class_map(laid_out(scores)))


def test_touching_nuclei_are_split_as_in_a_run(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "default", tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    rule = {"smoothing_um": 0.2, "least_depth_um": 0.3, "least_area_um2": 25.0}
    (tmp_path / "model" / "card.json").write_text(json.dumps(card | {"nucleus_splitting": rule}))
    y, x = np.ogrid[:60, :90]
    scores = np.zeros((60, 90, 3), np.float32)
    scores[..., 0] = ((y - 30) ** 2 + (x - 30) ** 2 <= 169) | ((y - 34) ** 2 + (x - 53) ** 2 <= 169)
    found = MinuganModel(tmp_path / "model")._class_map(scores)
    assert label_objects(scores[..., 0] > 0).max() == 1
    assert label_objects(found == 1).max() == 2


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(InputError, match="128 to 256"):
        MinuganModel(stride_px=300)


@STORES
def test_the_engines_store_names_classes_and_holds_the_mitoses_of_a_run(
    slide: Path, result: Result, tmp_path: Path
) -> None:
    path = run_engine(MinuganModel(), slide, tmp_path / "out", output_type="annotationstore")
    found = list(SQLiteStore.open(path).values())
    assert {a.properties["type"] for a in found} == {"Nucleus", "Mitosis"}
    theirs = [a.geometry for a in found if a.properties["type"] == "Mitosis"]
    ours = result.mitoses.geometry.to_numpy()
    assert len(theirs) == len(ours) > 5
    assert shapely.intersects(shapely.union_all(theirs), ours).all()


@STORES
def test_an_exported_store_holds_every_object_with_its_class_and_score(
    result: Result, tmp_path: Path
) -> None:
    count = write_annotation_store(open_slide_folder(result.folder), tmp_path / "slide.db")
    store = SQLiteStore.open(tmp_path / "slide.db")
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
    normalise = fit_normalizer("macenko", patches.reshape(-1, SIDE, 3), most_tissue(patches))
    engine = SemanticSegmentor(model, batch_size=4, verbose=False)
    model.preproc_func = normalise
    try:
        out = engine.run(patches[-4:], patch_mode=True, ioconfig=model.io_config(), return_probabilities=True)
    finally:
        model.preproc_func = None
    expected = predict(normalise(patches[-4:])).transpose(0, 2, 3, 1)
    assert np.abs(255 * np.asarray(out["probabilities"]) - expected).max() < 0.01


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_picture_without_tissue_is_refused(method: str, patches: np.ndarray) -> None:
    with pytest.raises(InputError, match="full of H&E tissue"):
        fit_normalizer(method, np.full((64, 64, 3), 255, np.uint8), most_tissue(patches))


@STORES
def test_the_guides_python_runs(slide: Path, result: Result, tmp_path: Path) -> None:
    """The commands of the guide run where the other guides' do."""
    shutil.copy(slide, tmp_path / "slide.svs")
    cv2.imwrite(str(tmp_path / "reference.png"), open_slide(slide).read_level(0, Box(256, 256, 512, 512)))
    (tmp_path / "OUT" / "export").mkdir(parents=True)
    write_annotation_store(open_slide_folder(result.folder), tmp_path / "OUT" / "export" / "SLIDE.db")
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL))
    call = [sys.executable, "-c", code + "\nassert sure and model.preproc_func(tissue).shape == tissue.shape"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'Mitosis': " in done.stdout
    assert (tmp_path / "TIATOOLBOX" / "slide.db").is_file()
