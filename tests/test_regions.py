"""A region in a run: only its blocks are computed, and the result is that of cutting afterwards."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
import zarr
from minugan_jobs.run import run_batch

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import InputError
from wsi_minugan.geometry import analysis_frame
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.pipeline.areas import (
    Drawn,
    both_drawn,
    read_drawn,
    read_regions_file,
    within,
    write_regions_file,
)
from wsi_minugan.pipeline.plan import open_reader, plan_slide
from wsi_minugan.pipeline.results import SlideWork, finish_slide
from wsi_minugan.pipeline.stages import (
    analyse_block,
    merge_blocks,
    object_thresholds,
    prepare_store,
    write_block,
)
from wsi_minugan.review.result import open_result
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide
from wsi_minugan.slides.tissue import everything


def drawn(path: Path, *rings: list[tuple[float, float]], name: str = "Tumour") -> Path:
    """Write polygons as QuPath exports annotations."""
    features = [
        {
            "type": "Feature",
            "id": f"00000000-0000-0000-0000-00000000000{k}",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "properties": {"objectType": "annotation", "name": name},
        }
        for k, ring in enumerate(rings)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def analysed(slide: Path, folder: Path, settings: RunSettings) -> Path:
    """Take a slide through all stages in this process, and return its folder."""
    from wsi_minugan.minugan.predictor import Predictor

    bundle = load_bundle(find_bundle("default")).first_stage_only()
    reader = open_reader(slide, settings)
    plan = plan_slide(SlideInput("a", slide), reader, settings, bundle.card.mpp)
    folder.parent.mkdir(parents=True, exist_ok=True)
    prepare_store(plan, folder, settings.nuclei)
    predictor, cuts = Predictor(bundle, precision="fp32"), object_thresholds(bundle, settings)
    for k in plan.order:
        analyse_block(plan, k, reader, predictor, cuts, folder, settings.nuclei)
    merge_blocks(plan, cuts, folder)
    for k in range(len(plan.blocks)):
        write_block(plan, k, folder, settings.nuclei)
    finish_slide(plan, reader, SlideWork(settings, bundle, "0" * 64), folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_in_a_region_is_a_whole_run_cut_afterwards(tmp_path: Path, run_command) -> None:
    drawing = SyntheticSlide(1900, 700, seed=4, mitoses=16)
    write_slide(tmp_path / "a.tiff", drawing)
    x = float(np.median(drawing.mitoses_xy_px[:, 0])) - 300
    region = drawn(tmp_path / "region.geojson", [(0, 0), (x, 0), (x + 20.5, 300), (x - 90, 690), (3.3, 600)])
    exclude = drawn(tmp_path / "exclude.geojson", [(0, 0), (150, 0), (150, 150), (0, 150)])
    counted = {"hotspot_mm2": 0.01, "hotspots": 2}
    settings = RunSettings(block_px=512, stride_px=256, nuclei=False, **counted)
    whole = analysed(tmp_path / "a.tiff", tmp_path / "whole" / "a", settings)
    cut = settings.model_copy(update={"region": region, "exclude": exclude})
    part = analysed(tmp_path / "a.tiff", tmp_path / "part" / "a", cut)
    done = run_command(
        *(
            "count",
            whole,
            "--region",
            region,
            "--exclude",
            exclude,
            "--hotspot-mm2",
            "0.01",
            "--hotspots",
            "2",
        ),
        *("-o", tmp_path / "cut.json"),
    )
    assert done.returncode == 0, done.stderr
    inside, after = (json.loads(p.read_text()) for p in (part / "count.json", tmp_path / "cut.json"))
    assert 0 < inside["mitoses"] < json.loads((whole / "count.json").read_text())["mitoses"]
    assert inside["regions"][0]["name"] == "Tumour"
    assert inside["regions"][0]["tissue_mm2"] == pytest.approx(inside["area_mm2"], abs=1e-6)
    for a, b in zip(inside.pop("hotspots"), after.pop("hotspots"), strict=True):
        assert a["mitoses"] == b["mitoses"]
        # A polygon's centroid in the GeoJSON, on a grid of 0.01 px, is not to the last digit that of its pixels.
        assert (a["center_x_px"], a["center_y_px"]) == pytest.approx(
            (b["center_x_px"], b["center_y_px"]), abs=0.1
        )
        assert a["tissue_fraction"] == pytest.approx(b["tissue_fraction"], abs=0.01)
    keys = ("mitoses", "area_mm2", "regions", "scores", "sensitivity", "interval")
    for key in keys:
        assert close(inside[key], after[key]), key
    # A count of the run in the region, and a review that changes nothing, stay in it.
    done = run_command(
        "count", part, "--hotspot-mm2", "0.01", "--hotspots", "2", "-o", tmp_path / "again.json"
    )
    assert done.returncode == 0, done.stderr
    again, result = json.loads((tmp_path / "again.json").read_text()), open_result(part)
    reviewed = json.loads(result.recount(result.mitoses).model_dump_json())
    for key in ("area_mm2", "regions", "scores", "fields", "hotspot"):
        assert close(inside[key], again[key]), key
        assert close(inside[key], reviewed[key]), key
    assert again["interval"] == inside["interval"]
    assert len(reviewed["hotspots"]) == len(again["hotspots"])
    fewer, all_ = (
        np.asarray(zarr.open_array(f / "masks.zarr" / "coverage" / "0", mode="r")[:]).sum()
        for f in (part, whole)
    )
    assert fewer < all_
    density = zarr.open_group(whole / "masks.zarr", mode="r")["density"]
    assert density["0"][:].max() > 0
    assert density.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [
        64.0,
        64.0,
    ]


def close(a: object, b: object) -> bool:
    """Return whether two JSON values are the same but for the rounding of coordinates in GeoJSON (0.01 px)."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return a == pytest.approx(b, rel=1e-6, abs=0.02) if isinstance(a, float) else a == b


def test_what_a_run_counted_in_is_kept_to_the_last_digit(tmp_path: Path) -> None:
    region = drawn(tmp_path / "r.geojson", [(0, 0), (20.1, 0.3), (20, 10.7)], [(50, 50), (60, 50), (60, 61)])
    exclude = drawn(tmp_path / "x.geojson", [(10, 0), (20, 0), (20, 3.3)])
    found = read_drawn(RunSettings(region=region, exclude=exclude), "a", 100, 100)
    for origin in ((0, 0), (30, 40)):
        write_regions_file(tmp_path / "regions.geojson", found, "f", origin)
        back = read_regions_file(tmp_path / "regions.geojson")
        assert back.regions.keys() == found.regions.keys() == {"Tumour"}
        assert shapely.equals_exact(back.allowed, found.allowed, 1e-9)
        assert shapely.equals_exact(back.regions["Tumour"], found.regions["Tumour"], 1e-9)
    (tmp_path / "regions.geojson").write_text('{"type":"FeatureCollection","features":[{}]}')
    with pytest.raises(InputError, match="as the run wrote it"):
        read_regions_file(tmp_path / "regions.geojson")


def test_a_count_stays_within_what_the_run_counted_in(tmp_path: Path) -> None:
    before, now, elsewhere = (
        read_drawn(RunSettings(region=drawn(tmp_path / f"{k}.geojson", ring)), "a", 100, 100)
        for k, ring in enumerate(
            (
                [(0, 0), (20, 0), (20, 10), (0, 10)],
                [(10, 0), (40, 0), (40, 10), (10, 10)],
                [(60, 60), (70, 60), (70, 70)],
            )
        )
    )
    assert (
        both_drawn(before, now, "a").allowed.area
        == both_drawn(before, now, "a").regions["Tumour"].area
        == 100
    )
    assert both_drawn(before, Drawn(), "a") is before
    assert both_drawn(Drawn(), now, "a") is now
    with pytest.raises(InputError, match="counted in other places"):
        both_drawn(before, elsewhere, "a")


def test_only_what_is_near_the_region_is_analysed(tmp_path: Path) -> None:
    region = drawn(tmp_path / "r.geojson", [(8000, 8000), (9000, 8000), (9000, 9000), (8000, 9000)])
    frame = analysis_frame(40_000, 30_000, 0.25, 0.25)
    found = read_drawn(RunSettings(region=region), "a", 40_000, 30_000)
    mask = within(everything(frame), found.allowed, frame).mask
    rows, columns = np.nonzero(mask)
    assert (columns.min() * 32, (columns.max() + 1) * 32) == pytest.approx((8000 - 640, 9000 + 640), abs=32)
    assert (rows.min() * 32, (rows.max() + 1) * 32) == pytest.approx((8000 - 640, 9000 + 640), abs=32)


def test_a_tissue_mask_may_be_a_picture_of_the_slide(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20, 5:25] = 255
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    found = read_drawn(RunSettings(tissue_mask=tmp_path), "a", 4000, 3000)
    assert found.own_tissue
    assert found.allowed.bounds == (500, 1000, 2500, 2000)
    assert found.allowed.area == 2000 * 1000


def test_a_folder_has_a_file_for_each_slide(tmp_path: Path) -> None:
    drawn(tmp_path / "a.geojson", [(0, 0), (10, 0), (10, 10)])
    assert read_drawn(RunSettings(region=tmp_path), "a", 100, 100).allowed.area == 50
    with pytest.raises(InputError, match=r"There is no b\.geojson"):
        read_drawn(RunSettings(region=tmp_path), "b", 100, 100)


def test_what_is_excluded_is_in_no_region(tmp_path: Path) -> None:
    region = drawn(tmp_path / "r.geojson", [(0, 0), (20, 0), (20, 10), (0, 10)])
    exclude = drawn(tmp_path / "x.geojson", [(10, 0), (20, 0), (20, 10), (10, 10)])
    found = read_drawn(RunSettings(region=region, exclude=exclude), "a", 100, 100)
    assert found.allowed.area == found.regions["Tumour"].area == 100
    with pytest.raises(InputError, match="Nothing of the slide a is left"):
        read_drawn(RunSettings(region=exclude, exclude=exclude), "a", 100, 100)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"type": "FeatureCollection", "features": []}', '{"type": "Point"}']
)
def test_a_file_without_an_area_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.geojson").write_text(text)
    with pytest.raises(InputError, match=r"r\.geojson"):
        read_drawn(RunSettings(region=tmp_path / "r.geojson"), "a", 100, 100)


@pytest.mark.parametrize("option", ["region", "exclude", "tissue_mask"])
def test_a_file_for_all_slides_that_none_can_use_is_refused_before_the_run(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "no area.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "no picture.png").write_bytes(b"no PNG")
    for name, words in (
        ("no area.geojson", "holds no area"),
        ("none.geojson", "There is no file"),
        ("no picture.png", "no PNG" if option == "tissue_mask" else "cannot be read"),
    ):
        settings = RunSettings.model_validate({option: tmp_path / name})
        with pytest.raises(InputError, match=words):
            run_batch([SlideInput("a", tmp_path / "a.svs")], tmp_path / "out", settings, lambda _: None)
    assert not (tmp_path / "out").exists()


def test_what_a_file_holds_and_not_its_place_decides_the_results(tmp_path: Path) -> None:
    a, b = (drawn(tmp_path / n, [(0, 0), (10, 0), (10, 10)]) for n in ("a.geojson", "b.geojson"))
    c = drawn(tmp_path / "c.geojson", [(0, 0), (10, 0), (10, 11)])
    keys = [RunSettings(region=p).results_key() for p in (a, b, c)]
    assert keys[0] == keys[1] != keys[2]
    assert str(tmp_path) not in json.dumps(keys)
