"""One index of several sets: below one root, with the splits and names that a layout does not tell."""

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result
from minugan_training.cli.main import app
from minugan_training.data.check import problems_of
from minugan_training.data.index import Entry, read_index
from minugan_training.data.index_schema import index_schema
from minugan_training.data.labels import load_sample
from minugan_training.importing.collect import import_set

from tests.training.test_data import published, write
from tests.training.test_importers import shared
from wsi_minugan.errors import DataError

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.mark.slow
def test_every_path_is_below_the_root(tmp_path: Path) -> None:
    for kind in ("tupac16", "icpr12", "icpr14", "midog", "monuseg", "rgb"):
        published(kind, tmp_path / "sets" / kind)
        (entry,) = import_set(kind, tmp_path / "sets" / kind, tmp_path)
        assert entry.image.startswith(f"sets/{kind}/")
        assert problems_of(tmp_path, [entry]) == []
        load_sample(tmp_path, entry)
    shared(tmp_path / "shared")
    entries = import_set("shared", tmp_path / "shared", tmp_path)
    assert [e.ignore for e in entries if e.ignore] == ["shared/icpr12_unmarked/unknown/H02_03.png"]
    assert problems_of(tmp_path, entries) == []


def test_a_set_that_is_linked_into_the_root_lies_below_it(tmp_path: Path) -> None:
    published("rgb", tmp_path / "elsewhere")
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "maps").symlink_to(tmp_path / "elsewhere")
    (entry,) = import_set("rgb", tmp_path / "sets" / "maps", tmp_path / "sets")
    assert entry.image == "maps/images/p1_0.png"
    with pytest.raises(DataError, match=r"does not lie below .* --root"):
        import_set("rgb", tmp_path / "sets" / ".." / "elsewhere", tmp_path / "sets")


def test_a_split_is_given_only_where_the_layout_gives_none(tmp_path: Path) -> None:
    published("rgb", tmp_path / "maps")
    shared(tmp_path / "shared")
    assert [e.split for e in import_set("rgb", tmp_path / "maps")] == [""]
    assert [e.split for e in import_set("rgb", tmp_path / "maps", split="test")] == ["test"]
    assert {e.split for e in import_set("shared", tmp_path / "shared", split="val")} == {
        "train",
        "val",
        "test",
    }


def test_label_maps_are_named_as_the_set_they_are_of(tmp_path: Path) -> None:
    write(tmp_path / "maps" / "images" / "03_7.png", np.zeros((40, 50, 3), np.uint8))
    write(tmp_path / "maps" / "labels" / "03_7.png", np.zeros((40, 50, 3), np.uint8))
    published("tupac16", tmp_path / "tupac16")
    (label_map,) = import_set("rgb", tmp_path / "maps", dataset="tupac16")
    (centres,) = import_set("tupac16", tmp_path / "tupac16")
    assert label_map.dataset == centres.dataset == "tupac16"
    assert label_map.patient == centres.patient == "tupac16-03"


def test_several_sets_are_not_named_as_one(tmp_path: Path) -> None:
    shared(tmp_path)
    with pytest.raises(DataError, match="several sets"):
        import_set("shared", tmp_path, dataset="all")


def test_sets_are_added_to_an_index_but_no_image_twice(tmp_path: Path) -> None:
    published("rgb", tmp_path / "maps")
    published("icpr12", tmp_path / "icpr12")
    index = tmp_path / "index.csv"
    common = ("--root", tmp_path, "-o", index, "--append")
    first = run("import", "rgb", tmp_path / "maps", "--split", "train", "--dataset", "tupac16", *common)
    second = run("import", "icpr12", tmp_path / "icpr12", "--split", "test", *common)
    assert first.exit_code == second.exit_code == 0
    assert "1 images added to 1" in second.output
    there = index.read_bytes()
    again = run("import", "rgb", tmp_path / "maps", *common)
    assert isinstance(again.exception, DataError)
    assert "maps/images/p1_0.png" in str(again.exception)
    assert index.read_bytes() == there
    assert [(e.dataset, e.split) for e in read_index(index)] == [("tupac16", "train"), ("icpr12", "test")]


def test_the_guides_index_of_several_sets_is_made_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, folder in (("rgb", "tupac16-maps"), ("tupac16", "tupac16-held-out")):
        published(kind, tmp_path / "sets" / folder)
    for kind in ("icpr12", "icpr14"):
        published(kind, tmp_path / "sets" / kind)
    text = (ROOT / "training" / "README.md").read_text("utf-8")
    lines = re.findall(r"^minugan-train (data .*\bsets\b.*)$", text, re.MULTILINE)
    assert len(lines) == 5
    monkeypatch.chdir(tmp_path)
    for line in lines:
        done = CliRunner().invoke(app, re.sub(r"\s+#.*", "", line).split())
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception}"
    told = [(e.dataset, e.split) for e in read_index(tmp_path / "all.csv")]
    assert told == [("tupac16", "train"), ("tupac16", "test"), ("icpr12", "test"), ("icpr14", "test")]


def test_the_committed_schema_is_that_of_the_index(tmp_path: Path) -> None:
    committed = (ROOT / "schemas" / "index-row.schema.json").read_text("utf-8")
    assert committed == index_schema(), "run: make schemas"
    assert run("schema").output == committed
    assert run("schema", "-o", tmp_path / "s.json").exit_code == 0
    assert (tmp_path / "s.json").read_text("utf-8") == committed


def test_every_importers_rows_fit_the_schema(tmp_path: Path) -> None:
    schema = json.loads(index_schema())
    shared(tmp_path / "shared")
    for kind in ("tupac16", "icpr12", "icpr14", "midog", "monuseg", "rgb"):
        published(kind, tmp_path / kind)
    for kind in ("tupac16", "icpr12", "icpr14", "midog", "monuseg", "rgb", "shared"):
        for entry in import_set(kind, tmp_path / kind):
            jsonschema.validate(entry.model_dump(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(entry.model_dump() | {"split": "all"}, schema)
    assert set(schema["properties"]) == set(Entry.model_fields)
