"""Agreement of readers: published examples, and AMi-Br's votes."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from wsi_minugan.counting.agreement import Reading, compare, icc, limits_of_agreement, weighted_kappa
from wsi_minugan.errors import InputError
from wsi_minugan.pipeline.readers import read_readers, require_one_scan


def test_icc_is_that_of_shrout_and_fleiss() -> None:
    # Table 2 of Shrout and Fleiss 1979: six targets, four judges; ICC(2,1) = 0.29 (0.02 to 0.76 by McGraw and Wong).
    judged = np.array(
        [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
    )
    found = icc(judged)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.29, 0.02, 0.76), abs=0.005)


def test_kappa_with_quadratic_weights_by_hand() -> None:
    scores = np.array([[1, 1], [1, 2], [2, 2], [3, 3], [3, 1], [2, 2]])
    # Squared differences: 1 + 4 of six cases; by chance: sum of products of marginals (2, 2, 2) and (2, 3, 1) / 36.
    by_chance = (2 * 3 * 1 + 2 * 1 * 4 + 2 * 2 * 1 + 2 * 1 * 1 + 2 * 2 * 4 + 2 * 3 * 1) / 36
    assert weighted_kappa(scores) == pytest.approx(1 - (5 / 6) / by_chance)
    assert weighted_kappa(np.array([[1, 1], [2, 2], [3, 3]])) == 1
    assert np.isnan(weighted_kappa(np.ones((4, 2), int)))


def test_limits_of_agreement_hold_95_percent_of_differences() -> None:
    rng = np.random.default_rng(0)
    first = rng.poisson(30, 4000)
    found = limits_of_agreement(np.stack([first, first + rng.integers(-6, 3, 4000)], axis=1))
    assert found is not None
    assert found.bias.value == pytest.approx(2, abs=0.2)
    assert found.lower.low < found.lower.value < found.bias.low < found.bias.high < found.upper.value
    assert limits_of_agreement(np.array([[1, 2], [3, 4]])) is None


def test_matched_and_unmatched_mitoses_are_told_apart() -> None:
    a = Reading(np.array([[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]]), 0.25, 1)
    b = Reading(np.array([[10.0, 0.0], [100.0, 40.0]]) / 2, 0.5, 2)
    found = compare({"A": {"case": a}, "B": {"case": b}}).pairs[0]
    assert (found.both, found.first_only, found.second_only) == (1, 2, 1)
    assert found.f1.value == pytest.approx(2 / 5)
    assert {(u.reader, u.x_px) for u in found.unmatched} == {("A", 100.0), ("A", 200.0), ("B", 50.0)}


def marks(path: Path, points: list[tuple[float, float]]) -> None:
    """Write points as mitoses."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": p},
            "properties": {"classification": {"name": "Mitosis"}},
        }
        for p in points
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_the_command_writes_figures_the_unmatched_and_a_picture(tmp_path: Path, run_command) -> None:
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c", "d"):
        points = rng.uniform(0, 4000, (12, 2)).tolist()
        marks(tmp_path / "A" / f"{case}.geojson", points[:10])
        marks(tmp_path / "B & co" / f"{case}.geojson", points[2:])
    marks(tmp_path / "A" / "only here.geojson", [])
    done = run_command("agree", tmp_path / "A", tmp_path / "B & co", "--mpp", "0.25", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "only here" in done.stderr
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert found["pairs"][0]["f1"]["value"] == pytest.approx(0.8)
    assert len((tmp_path / "out" / "unmatched.csv").read_text().splitlines()) == 1 + 4 * 4
    picture = (tmp_path / "out" / "agreement.svg").read_text()
    assert picture.count("<circle") == 4
    assert "B &amp; co" in picture
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "agreement.schema.json").read_text())
    import jsonschema

    jsonschema.validate(found, schema)


def test_readers_without_a_common_case_are_refused(tmp_path: Path, run_command) -> None:
    for reader, case in (("A", "a"), ("A", "b"), ("B", "c"), ("B", "d")):
        marks(tmp_path / reader / f"{case}.geojson", [(1, 1)])
    done = run_command("agree", tmp_path / "A", tmp_path / "B", "--mpp", "0.25")
    assert done.returncode == 2
    assert "No case is common" in done.stderr


def one_mark(mpp: float) -> dict[str, Reading]:
    return {"case": Reading(np.array([[9.0, 9.0]]), mpp, 1)}


def test_places_on_scans_of_other_resolutions_are_not_compared() -> None:
    """0.2456 and 0.25 um/px of one slide gave F1 0.06 without a word, and 0.71 with the right --mpp."""
    with pytest.raises(InputError, match=r"A has 0\.2456 um/px and B 0\.25, .*--no-places"):
        require_one_scan({"A": one_mark(0.2456), "B": one_mark(0.25)})
    for mpp in (0.25, 0.50, 1.00, 0.250001):
        require_one_scan({"A": one_mark(0.25), "B": one_mark(mpp)})


def test_a_reader_who_is_named_twice_is_refused(tmp_path: Path) -> None:
    marks(tmp_path / "A" / "a.geojson", [(1, 1)])
    with pytest.raises(InputError, match="named twice"):
        read_readers([tmp_path / "A", tmp_path / "A"], 0.25, 0.5)


@pytest.mark.shared
def test_amibrs_votes_give_their_own_agreement(shared: Path) -> None:
    # Of figures that the majority called mitoses, two readers agreed on "2/2" and one of them said no to "1/2" and "2/3" (a third decided).
    rows = list(csv.DictReader((shared / "data" / "amibr" / "crops.csv").open()))
    for dataset, agreed, disputed in (("MIDOG21", 1195, 526), ("TUPAC16", 1765, 234)):
        points: dict[str, dict[str, list[tuple[float, float]]]] = {r: defaultdict(list) for r in "AB"}
        turn = 0
        for row in rows:
            if row["dataset"] != dataset:
                continue
            at = float(row["slide_x_px"]), float(row["slide_y_px"])
            if row["votes"] != "2/2":
                turn += 1  # who of the two it was is not known: each in turn
            for k, reader in enumerate("AB"):
                points[reader][row["slide"]] += [at] if row["votes"] == "2/2" or turn % 2 == k else []
        cases = {row["slide"] for row in rows if row["dataset"] == dataset}
        readings = {
            r: {c: Reading(np.array(points[r][c], float).reshape(-1, 2), 0.25, None) for c in cases}
            for r in "AB"
        }
        found = compare(readings, radius_um=0.01).pairs[0]
        assert found.f1.value == pytest.approx(2 * agreed / (2 * agreed + disputed), abs=0.002)
        assert found.icc is not None
        assert found.icc.value > 0.9
