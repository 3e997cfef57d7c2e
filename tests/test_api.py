"""The Python API: one slide in one line, its results as tables, arrays and a picture, and counts."""

import gc
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import wsi_minugan
from wsi_minugan import Result, analyze, count_mitoses, fields, hotspot, load_model, open_slide, predict
from wsi_minugan.errors import InputError, OutputError, SettingsError, SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.minugan.bundle import find_bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a slide of a few patches, where only the form of the results matters."""
    path = tmp_path_factory.mktemp("small") / "small.tiff"
    write_slide(path, SyntheticSlide(700, 600, seed=4, mitoses=4, tissue_fraction=0.7))
    return path


@pytest.fixture(scope="module")
def result(slide: Path, model: Predictor) -> Result:
    """Return the synthetic slide's results, as one line gives them."""
    return analyze(slide, model=model, precision="fp32")


def near(found: np.ndarray, truth: np.ndarray, reach_px: float = 30) -> int:
    return sum(bool((np.hypot(*(found - t).T) < reach_px).any()) for t in truth)


def test_one_line_finds_known_mitoses_and_little_else(result: Result, drawing: SyntheticSlide) -> None:
    mitoses = result.mitoses
    centroids = np.stack([mitoses.geometry.centroid.x, mitoses.geometry.centroid.y], axis=1)
    assert near(centroids, drawing.mitoses_xy_px) >= len(drawing.mitoses_xy_px) / 3
    assert near(drawing.mitoses_xy_px, centroids) >= len(centroids) - 3
    assert len(mitoses) == result.count.mitoses


def test_it_needs_no_dask_cluster_and_leaves_no_file(small: Path, tmp_path: Path) -> None:
    code = f"""
import sys, wsi_minugan
result = wsi_minugan.analyze({str(small)!r}, nuclei=False)
print(len(result.mitoses), result.folder)
assert "distributed" not in sys.modules and "minugan_jobs" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, folder = done.stdout.split(maxsplit=1)
    assert int(count) >= 0
    assert not Path(folder.strip()).exists()
    assert not list(tmp_path.iterdir())


def test_results_are_those_of_the_command_file_for_file(slide: Path, finished: Path, tmp_path: Path) -> None:
    own = analyze(slide, out=tmp_path / "own", block_px=512)
    theirs = Result.open(finished / slide.stem)
    assert own.manifest.files == theirs.manifest.files


def test_tables_are_in_slide_pixels_and_say_no_false_reference_system(
    result: Result, drawing: SyntheticSlide
) -> None:
    for table in (result.mitoses, result.nuclei, result.hotspot):
        assert table.crs is None
        left, top, right, bottom = result.mitoses.total_bounds
        assert 0 <= left < right <= drawing.width_px
        assert 0 <= top < bottom <= drawing.height_px
    assert {"area_um2", "peak_score", "mean_score"} <= set(result.mitoses.columns)
    assert result.mitoses.index.is_unique
    assert (result.nuclei.area_um2 > 0).all()


def test_the_hot_spot_is_apart_and_holds_its_mitoses(result: Result) -> None:
    circle = result.hotspot.iloc[0]
    inside = result.mitoses.geometry.centroid.within(circle.geometry.buffer(1))
    assert inside.sum() == circle.mitoses == result.count.hotspot.mitoses
    assert "Hot spot" not in result.mitoses.columns


def test_masks_are_dask_arrays_with_their_scale(result: Result, drawing: SyntheticSlide) -> None:
    assert set(result.masks) == {"classes", "mitoses", "nuclei", "mitosis_score", "coverage"}
    classes = result.masks["classes"]
    assert classes.data.shape == (drawing.height_px, drawing.width_px)
    assert classes.scale_um() == (0.25, 0.25)
    assert classes.scale_um(1) == (0.5, 0.5)
    assert [level.shape for level in classes.levels][1] == (drawing.height_px // 2, drawing.width_px // 2)
    assert set(np.unique(classes.data.compute())) == {0, 1, 2}
    assert result.masks["mitoses"].data.max().compute() == len(result.mitoses)
    assert result.masks["nuclei"].data.max().compute() == len(result.nuclei)


def test_a_polygon_lies_on_its_mask(result: Result) -> None:
    number = result.nuclei.index[len(result.nuclei) // 2]
    nucleus = result.nuclei.loc[number]
    at = result.masks["nuclei"].data[int(nucleus.centroid_y_px), int(nucleus.centroid_x_px)].compute()
    assert at == number


def test_a_mask_outlives_its_result_and_the_folder_goes_with_the_last_of_them(
    small: Path, model: Predictor
) -> None:
    made = analyze(small, model=model)
    folder, mask = made.folder, made.masks["classes"]
    del made
    gc.collect()
    assert mask.data.max().compute() >= 1
    del mask
    gc.collect()
    assert not folder.exists()


def test_results_are_kept_where_the_user_says(result: Result, tmp_path: Path) -> None:
    kept = result.save(tmp_path / "kept")
    assert kept.folder == tmp_path / "kept"
    assert Result.open(tmp_path / "kept").manifest == result.manifest
    with pytest.raises(OutputError, match="not empty"):
        result.save(tmp_path / "kept")
    with pytest.raises(OutputError, match="not empty"):
        analyze("no matter.svs", out=tmp_path / "kept")


def test_a_mask_travels_to_another_process(result: Result, tmp_path: Path) -> None:
    kept = result.save(tmp_path / "kept")
    again = pickle.loads(pickle.dumps(kept.masks["classes"].data))
    assert again.max().compute() == 2


def test_overview_is_a_picture_and_a_notebook_shows_it(result: Result) -> None:
    picture = result.overview()
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    html = result._repr_html_()
    assert "data:image/png;base64," in html
    assert f"{result.count.mitoses} mitoses" in html
    assert "demo" not in repr(result)


def test_progress_counts_blocks(small: Path, model: Predictor) -> None:
    seen: list[tuple[int, int]] = []
    analyze(small, model=model, block_px=512, nuclei=False, progress=lambda done, of: seen.append((done, of)))
    assert seen[0] == (0, seen[0][1])
    assert seen[-1] == (seen[0][1], seen[0][1])
    assert len(seen) == seen[0][1] + 1


def test_without_nuclei_the_table_says_so(small: Path, model: Predictor) -> None:
    made = analyze(small, model=model, nuclei=False)
    assert "nuclei" not in made.masks
    with pytest.raises(OutputError, match="no nuclei"):
        _ = made.nuclei


def test_an_mpp_given_replaces_that_of_the_slide(small: Path, model: Predictor) -> None:
    assert analyze(small, model=model, mpp=0.26, nuclei=False).mpp == 0.26


def test_wrong_input_is_a_sentence(tmp_path: Path, slide: Path) -> None:
    with pytest.raises(SlideUnreadableError, match="There is no file"):
        analyze(tmp_path / "none.svs")
    with pytest.raises(SettingsError, match="colour"):
        analyze(slide, colour="red")
    with pytest.raises(OutputError, match="no finished result"):
        Result.open(tmp_path)
    with pytest.raises(InputError, match="8-bit"):
        predict(np.zeros((256, 256, 3), np.float32))
    with pytest.raises(InputError, match="channels last"):
        predict(np.zeros((3, 256, 256), np.uint8))
    with pytest.raises(InputError, match="stride"):
        predict(np.zeros((300, 300, 3), np.uint8), stride_px=100)
    with pytest.raises(InputError, match="shape"):
        count_mitoses([[1.0, 2.0, 3.0]], 0.25)


@pytest.mark.parametrize("size", [0, -1.0, float("nan"), float("inf")])
def test_sizes_and_modes_that_are_none_are_told(size: float) -> None:
    point = [[1.0, 2.0]]
    for count in (
        lambda: count_mitoses(point, size),
        lambda: count_mitoses(point, 0.25, hotspot_mm2=size),
        lambda: hotspot(point, 0.25, area_mm2=size),
        lambda: fields(point, 0.25, hpf_diameter_mm=size),
    ):
        with pytest.raises(InputError, match="must be a number above zero"):
            count()
    with pytest.raises(InputError, match="'free' or 'adjacent', not 'touching'"):
        fields(point, 0.25, mode="touching")  # type: ignore[arg-type]


def test_predict_scores_patches_and_images_of_any_size(model: Predictor, drawing: SyntheticSlide) -> None:
    x, y = (int(v) for v in drawing.mitoses_xy_px[0])
    image = drawing.draw(Box(y - 200, x - 250, 400, 500))
    patches = np.stack([image[:256, :256], image[-256:, -256:]])
    scores = predict(patches, model)
    assert scores.shape == (2, 3, 256, 256)
    assert np.array_equal(scores, model.predict(patches))
    whole = predict(image, model)
    assert whole.shape == (3, 400, 500)
    assert whole.dtype == np.uint8
    assert whole[1, 180:220, 230:270].max() > 128
    assert predict(zarr.array(image), model).shape == whole.shape


def test_patches_of_the_size_that_the_model_sees_at_once_are_scored_as_they_are(
    tmp_path: Path, drawing: SyntheticSlide
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_bundle("default"), folder)
    card = json.loads((folder / "card.json").read_text())
    x, y = (int(v) for v in drawing.mitoses_xy_px[0])
    image = drawing.draw(Box(y - 200, x - 250, 512, 512))
    for across in (1, 2):
        (folder / "card.json").write_text(json.dumps(card | {"patches_across": across}))
        model = load_model(folder)
        if across == 1:
            with pytest.raises(InputError, match="256, 256, 3"):
                predict(image[None], model)
        else:
            scores = predict(image[None], model)
            assert scores.shape == (1, 3, 512, 512)
            # At this stride windows lie side by side, and one covers the image.
            blended = predict(image, model, stride_px=256)
            assert np.array_equal(blended, scores[0])
        assert predict(image[None, :256, :256], model).shape == (1, 3, 256, 256)


@pytest.mark.parametrize("across", [1, 2])
def test_the_manifest_counts_patches_of_256_px_however_many_the_model_sees_at_once(
    small: Path, tmp_path: Path, across: int
) -> None:
    shutil.copytree(find_bundle("default"), tmp_path / "model")
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    (tmp_path / "model" / "card.json").write_text(json.dumps(card | {"patches_across": across}))
    analyze(small, model=tmp_path / "model", out=tmp_path / "out", tissue=False, nuclei=False)
    stride = 256 * across - 64
    windows = -(-700 // stride) * -(-600 // stride)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["patches"] == windows * across**2


def test_counts_take_tables_and_points(result: Result) -> None:
    table = count_mitoses(result.mitoses, result.mpp, area_mm2=result.count.area_mm2)
    points = np.stack([result.mitoses.geometry.centroid.x, result.mitoses.geometry.centroid.y], axis=1)
    assert table == count_mitoses(points, result.mpp, area_mm2=result.count.area_mm2)
    assert table.mitoses == result.count.mitoses
    assert table.hotspot.mitoses == result.count.hotspot.mitoses
    spot = hotspot(points, result.mpp)
    assert spot is not None
    assert spot.mitoses == table.hotspot.mitoses
    assert hotspot([], 0.25) is None
    placed = fields(result.mitoses, result.mpp, hpf_diameter_mm=0.05)
    assert placed.total <= placed.upper_bound
    assert sum(placed.counts) == placed.total <= table.mitoses


def test_a_slide_opens_by_name(slide: Path, drawing: SyntheticSlide) -> None:
    reader = open_slide(str(slide))
    assert (reader.info.width_px, reader.info.height_px) == (drawing.width_px, drawing.height_px)
    reader.close()


def test_importing_loads_nothing_and_all_names_are_there() -> None:
    code = (
        "import sys, wsi_minugan; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
        "assert set(wsi_minugan.__all__) <= set(dir(wsi_minugan)); [getattr(wsi_minugan, n) for n in wsi_minugan.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = wsi_minugan.analyse
