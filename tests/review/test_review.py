"""`wsi-minugan review`: what QuPath's user changed, the new count, and images that training takes; the original stays as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from minugan_training.data.index import points_of, read_index
from minugan_training.data.labels import load_sample

from wsi_minugan.errors import InputError, LockedError, OutputError
from wsi_minugan.outputs.geojson import read_marks
from wsi_minugan.outputs.manifest import digests
from wsi_minugan.outputs.objects import Marked, read_objects
from wsi_minugan.pipeline.own_files import own_files
from wsi_minugan.pipeline.readers import read_readers
from wsi_minugan.review.people import folder_name
from wsi_minugan.review.result import Result, open_result
from wsi_minugan.review.store import circle_at, read_review, reviewers_of, save_review
from wsi_minugan.schemas import FOLDER

NOT = {"name": "Not mitosis", "color": [213, 94, 0]}


def point(x: float, y: float, label: str = "Mitosis") -> dict[str, Any]:
    properties = {"objectType": "annotation", "classification": {"name": label, "color": [1, 2, 3]}}
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, y]}, "properties": properties}


def edit(mitoses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reject the first, delete the second, add one in a corner where there is none."""
    mitoses[0]["properties"]["classification"] = NOT
    return [mitoses[0], *mitoses[2:], point(300.25, 700.5)]


def test_a_review_tells_what_changed_and_writes_it_beside_the_original(
    run_command, out: Path, folder: Path, corrected: Callable[..., Path]
) -> None:
    before, n = digests(folder, own_files(folder)), len(open_result(folder).mitoses)
    done = run_command("review", folder, corrected(edit), "--reviewer", "ann")
    assert done.returncode == 0, done.stderr
    assert f"{n - 2} kept, 0 moved, 1 given another class, 1 removed, 1 added." in done.stdout
    assert f"mitoses           {n} -> {n - 1}" in done.stdout
    assert digests(folder, own_files(folder)) == before
    assert run_command("verify", out).returncode == 0
    place = folder / "reviews" / "ann"
    file = json.loads((place / "review.json").read_text())
    jsonschema.validate(file, json.loads((FOLDER / "review.schema.json").read_text()))
    assert (file["reviewer"], file["before"]["mitoses"], file["after"]["mitoses"]) == ("ann", n, n - 1)
    for name, schema in (("mitoses.geojson", "mitoses"), ("count.json", "count")):
        content = json.loads((place / name).read_text())
        jsonschema.validate(content, json.loads((FOLDER / f"{schema}.schema.json").read_text()))
    readings, _ = read_readers([folder, place], None, 0.5)
    assert [len(r["case"].points_px) for r in readings.values()] == [n, n - 1]
    again = run_command("count", place / "mitoses.geojson", "--mpp", "0.25", "-o", out / "again.json")
    assert again.returncode == 0
    assert json.loads((out / "again.json").read_text())["mitoses"] == n - 1


def test_uuids_come_through_a_review(result: Result, corrected: Callable[..., Path]) -> None:
    saved = save_review(result, read_objects(corrected(edit)), "ann", "review")
    ids = {m.id for m in result.mitoses}
    kept = [o.id for o in saved.objects if o.id in ids]
    assert len(kept) == len(ids) - 1
    read = read_review(result, "ann")
    assert read is not None
    assert [o.id for o in read.objects] == [o.id for o in saved.objects]
    assert {o.id for o in read.objects if o.label == "Not mitosis"} == {result.mitoses[0].id}


def test_an_unchanged_file_changes_no_count(result: Result, corrected: Callable[..., Path]) -> None:
    saved = save_review(result, read_objects(corrected(lambda m: m)), "ann", "review")
    after, before = saved.file.after, result.count
    assert (after.mitoses, after.hotspot.mitoses, after.scores) == (
        before.mitoses,
        before.hotspot.mitoses,
        before.scores,
    )
    # The run counts centroids of pixels, and a review those of outlines.
    assert after.hotspot.center_x_px == pytest.approx(before.hotspot.center_x_px, abs=2)
    assert saved.file.tally["kept"] == len(result.mitoses)
    assert saved.file.changes == []


def test_training_takes_the_images_of_a_review(
    run_command, folder: Path, corrected: Callable[..., Path]
) -> None:
    where = {o.id: o.centre_px for o in open_result(folder).mitoses}
    first = next(iter(where))
    done = run_command("review", folder, corrected(edit), "--reviewer", "ann")
    assert "3 images for training" in done.stdout
    place = folder / "reviews" / "ann"
    rejected, added, removed = read_index(place / "index.csv")
    for entry in (rejected, removed):
        assert (entry.mitoses, entry.nuclei) == ("absent", "unknown")
    assert added.mitoses == "known"
    # The crop starts at the place that its name tells.
    left, top = (int(v) for v in Path(added.image).stem.split("-"))
    assert np.allclose(added.points_px, [(300.2 - left, 700.5 - top)], atol=0.11)
    left, top = (int(v) for v in Path(rejected.image).stem.split("-"))
    x, y = where[first]
    assert 0 <= x - left < rejected.width_px
    assert 0 <= y - top < rejected.height_px
    # Places that are none are told, so that adapting need not guess which of the crop's nuclei it was.
    assert np.allclose(points_of(rejected.look_alikes)[0], (x - left, y - top), atol=0.11)
    for entry in (rejected, added, removed):
        sample = load_sample(place, entry)
        assert sample.image.shape == (entry.height_px, entry.width_px, 3)
    # Of what nobody looked at, nothing is learned.
    if added.ignore:
        assert (load_sample(place, added).labels[..., 1] == 255).any()


def test_images_of_decisions_that_were_taken_back_go(
    run_command, folder: Path, corrected: Callable[..., Path]
) -> None:
    run_command("review", folder, corrected(edit), "--reviewer", "ann")
    done = run_command("review", folder, corrected(lambda m: m), "--reviewer", "ann")
    assert "0 images for training" in done.stdout
    assert not list((folder / "reviews" / "ann" / "crops").iterdir())
    assert read_index(folder / "reviews" / "ann" / "index.csv") == []


def test_without_the_slide_a_review_is_whole_and_says_what_it_lacks(
    run_command, folder: Path, corrected: Callable[..., Path], tmp_path: Path
) -> None:
    alone = tmp_path / "elsewhere" / "synthetic slide"
    shutil.copytree(folder, alone)
    done = run_command("review", alone, corrected(edit), "--reviewer", "ann")
    assert done.returncode == 0
    assert "No index.csv for training" in done.stderr
    assert "--slide" in done.stderr
    assert (alone / "reviews" / "ann" / "review.json").is_file()


def test_another_slide_is_refused(
    run_command, folder: Path, corrected: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "other.tiff").write_bytes(b"not that slide")
    done = run_command("review", folder, corrected(edit), "--slide", tmp_path / "other.tiff")
    assert done.returncode == 2
    assert "is not the slide" in done.stderr


def test_two_reviewers_stay_apart(result: Result, corrected: Callable[..., Path]) -> None:
    objects = read_objects(corrected(edit))
    save_review(result, objects, "Ann Lee", "review")
    save_review(result, objects[:3], "Bob", "review")
    assert reviewers_of(result.folder) == ["Ann Lee", "Bob"]
    ann, bob = read_review(result, "Ann Lee"), read_review(result, "Bob")
    assert ann is not None and bob is not None
    assert ann.folder != bob.folder
    assert ann.file.tally != bob.file.tally
    assert read_review(result, "Cy") is None


def test_a_decision_keeps_its_time_and_somebody_elses_is_not_taken_over(
    result: Result, corrected: Callable[..., Path]
) -> None:
    first = save_review(result, read_objects(corrected(edit)), "ann", "review")
    stamps = {o.id: o.metadata for o in first.objects if o.metadata}
    assert {m["Review"] for m in stamps.values()} == {"rejected", "added"}
    second = save_review(result, first.objects, "ann", "review")
    assert {o.id: o.metadata for o in second.objects if o.metadata} == stamps
    assert second.file.revision == 2
    handed_on = save_review(result, first.objects, "bob", "review")
    assert {o.metadata["Reviewer"] for o in handed_on.objects if o.metadata} == {"bob"}


def test_a_window_that_is_behind_does_not_overwrite(result: Result) -> None:
    save_review(result, result.mitoses, "ann", "view", revision=0)
    with pytest.raises(LockedError, match="another window"):
        save_review(result, (), "ann", "view", revision=0)
    saved = read_review(result, "ann")
    assert saved is not None
    assert saved.file.tally["kept"] == len(result.mitoses)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "a/b",
        ".hidden",
        "..",
        "x" * 80,
        "Ann Lee",
        "ann-lee",
        "Ångström",
        "a\\b",
        "C:",
        "🙂",
        "_",
    ],
)
def test_a_reviewers_folder_is_one_plain_folder_inside(name: str, result: Result) -> None:
    saved = save_review(result, result.mitoses, name, "review")
    assert saved.folder.parent == result.folder / "reviews"
    assert not saved.folder.name.startswith(".")
    assert len(saved.folder.name) < 60
    read = read_review(result, name)
    assert read is not None
    assert read.file.reviewer == name


def test_names_never_share_a_folder_but_for_their_case() -> None:
    names = ["Ann Lee", "ann-lee", "ann_lee", "ann/lee", "ann\\lee", "x" * 79, "x" * 80, "a", "b"]
    assert len({folder_name(n) for n in names}) == len(names)
    assert folder_name("ANN") == folder_name("ann")


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\nb", "a\0b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="reviewer"):
        folder_name(name)


def test_a_link_out_of_the_slides_folder_is_refused(result: Result, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (result.folder / "reviews").symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="leads out"):
        save_review(result, result.mitoses, "ann", "review")
    assert not list((tmp_path / "outside").iterdir())


def test_a_review_of_another_slide_is_not_read(result: Result) -> None:
    saved = save_review(result, result.mitoses, "ann", "review")
    path = saved.folder / "review.json"
    path.write_text(path.read_text().replace(result.sealed.slide.fingerprint, "0" * 64))
    with pytest.raises(OutputError, match="another slide"):
        read_review(result, "ann")


def test_files_that_qupath_users_can_make_are_all_taken(result: Result, tmp_path: Path) -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[10, 10], [40, 40], [40, 10], [10, 40], [10, 10]]]}
    line = {"type": "LineString", "coordinates": [[100, 100], [110, 100]]}
    many = {"type": "MultiPoint", "coordinates": [[200, 200], [300, 300]]}
    features = [point(500, 500) | {"geometry": g, "id": "no uuid"} for g in (bow_tie, line, many)]
    path = tmp_path / "made.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    saved = save_review(result, read_objects(path), "ann", "review")
    assert saved.file.tally["added"] == 4
    assert saved.file.tally["removed"] == len(result.mitoses)
    for found in saved.objects:
        assert found.shape.is_valid
        assert found.shape.area > 0
    assert len(read_marks(saved.folder / "mitoses.geojson").points_px) == 4


def test_coordinates_that_count_from_the_slides_bounds_come_back_in_them(result: Result) -> None:
    from dataclasses import replace

    shifted = replace(result, sealed=result.sealed.model_copy(update={"geojson_origin_px": (30, 50)}))
    saved = save_review(shifted, shifted.mitoses, "ann", "review")
    content = json.loads((saved.folder / "mitoses.geojson").read_text())
    assert content["origin_px"] == [30, 50]
    read = read_review(shifted, "ann")
    assert read is not None
    for a, b in zip(read.objects, shifted.mitoses, strict=True):
        assert np.allclose(a.centre_px, b.centre_px, atol=0.02)


def test_a_mark_must_lie_on_the_slide(result: Result) -> None:
    assert circle_at(result, 10, 10).area == pytest.approx(np.pi * 20**2, rel=0.01)
    for x, y in ((-1, 5), (5, 1e9), (float("nan"), 1), (float("inf"), 1)):
        with pytest.raises(ValueError, match="outside"):
            circle_at(result, x, y)


def test_a_marked_object_without_uuid_is_no_copy() -> None:
    assert Marked("", "Mitosis", circle_shape()).counts


def circle_shape() -> Any:
    import shapely

    return shapely.Point(0, 0).buffer(3)


@pytest.mark.slow
def test_a_slide_that_is_done_again_keeps_its_reviews(
    run_command, slide: Path, out: Path, corrected: Callable[..., Path]
) -> None:
    place = out / "synthetic slide" / "reviews"
    save_review(open_result(place.parent), read_objects(corrected(edit)), "ann", "review")
    before = {p.name: p.read_bytes() for p in (place / "ann").iterdir() if p.is_file()}
    done = run_command("run", slide, "-o", out, "--block", "512", "--hotspot-mm2", "1.0")
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (place / "ann").iterdir() if p.is_file()} == before
    assert run_command("verify", out).returncode == 0
    read = read_review(open_result(place.parent), "ann")
    assert read is not None
    assert read.file.before.hotspot.area_mm2 != open_result(place.parent).count.hotspot.area_mm2
