"""Touching nuclei of a slide are split: all files agree, no block size changes them, and mitoses stay as they are."""

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import zarr

from wsi_minugan.api.analysis import analyze
from wsi_minugan.minugan.bundle import BUNDLED
from wsi_minugan.segmentation.objects import label_objects
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

RULE = {
    "smoothing_um": 0.2,
    "least_depth_um": 0.3,
    "least_area_um2": 25.0,
    "largest_area_um2": 20000.0,
    "hole_um2": 10.0,
}


def model_with(folder: Path, rule: dict[str, float] | None) -> Path:
    """Return the bundled model with a rule for touching nuclei."""
    shutil.copytree(BUNDLED / "default", folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"nucleus_splitting": rule}))
    return folder


def mask_of(folder: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(folder / "masks.zarr" / "labels" / name / "0", mode="r"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of a dense slide: not split, split, and split in smaller blocks."""
    folder = tmp_path_factory.mktemp("split")
    write_slide(folder / "slide.tiff", SyntheticSlide(900, 700, seed=4, mitoses=8))
    split = model_with(folder / "split-model", RULE)
    runs = {
        "whole": (model_with(folder / "whole-model", None), 1024),
        "split": (split, 1024),
        "blocks": (split, 512),
    }
    for name, (model, block_px) in runs.items():
        analyze(
            folder / "slide.tiff", model=model, out=folder / name, block_px=block_px, device="cpu", threads=1
        )
    return {name: folder / name for name in runs}


@pytest.mark.slow
def test_mitoses_stay_byte_for_byte_the_same(results: dict[str, Path]) -> None:
    for name in ("mitoses.geojson", "count.json"):
        assert (results["whole"] / name).read_bytes() == (results["split"] / name).read_bytes(), name
    assert np.array_equal(mask_of(results["whole"], "mitoses"), mask_of(results["split"], "mitoses"))


@pytest.mark.slow
def test_splitting_makes_more_nuclei_of_fewer_pixels(results: dict[str, Path]) -> None:
    before, after = (geopandas.read_parquet(results[n] / "nuclei.parquet") for n in ("whole", "split"))
    assert len(after) > len(before)
    whole, split = (mask_of(results[n], "classes") for n in ("whole", "split"))
    assert ((split == whole) | (split == 0)).all()
    assert 0 < np.count_nonzero(split != whole) < 0.05 * np.count_nonzero(whole)


@pytest.mark.slow
def test_no_block_size_changes_what_is_split(results: dict[str, Path]) -> None:
    for name in ("classes", "mitoses", "nuclei"):
        assert np.array_equal(mask_of(results["split"], name), mask_of(results["blocks"], name)), name
    for name in ("mitoses.geojson", "count.json", "nuclei.parquet"):
        assert (results["split"] / name).read_bytes() == (results["blocks"] / name).read_bytes(), name


@pytest.mark.slow
def test_class_map_numbers_and_table_agree(results: dict[str, Path]) -> None:
    classes, nuclei = (mask_of(results["blocks"], name) for name in ("classes", "nuclei"))
    table = geopandas.read_parquet(results["blocks"] / "nuclei.parquet")
    assert np.array_equal(classes == 1, nuclei > 0)
    # Whoever labels the class map finds the same nuclei.
    assert label_objects(classes == 1).max() == nuclei.max() == len(table)
    assert table.nucleus.tolist() == list(range(1, len(table) + 1))
    for row in table.sample(20, random_state=0).itertuples():
        inside = row.geometry.representative_point()
        assert nuclei[int(inside.y), int(inside.x)] == row.nucleus


@pytest.mark.slow
def test_the_manifest_names_what_splits(results: dict[str, Path]) -> None:
    written = {n: json.loads((results[n] / "manifest.json").read_text()) for n in ("whole", "split")}
    assert "scikit-image" in written["split"]["versions"]
    assert written["split"]["nucleus_splitting"] == RULE
    assert written["whole"]["nucleus_splitting"] is None
    # The digest is part of the key by which a run knows what is done.
    assert written["whole"]["model"]["digest"] != written["split"]["model"]["digest"]
