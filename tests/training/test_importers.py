"""The importers on the folders that are published, with what lies in them beside images and truth."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from minugan_training.data.check import problems_of
from minugan_training.data.index import read_index, write_index
from minugan_training.data.labels import IGNORE, MITOSES, NUCLEI, load_sample, mitosis_truth, read_instances
from minugan_training.evaluation.metrics import dice
from minugan_training.importing.importers import import_data
from minugan_training.importing.layouts import import_folder

from tests.training.test_data import drawn, published, write
from wsi_minugan.errors import DataError


def tissue(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), (200, 120, 180), np.uint8)


def tupac16(root: Path, cases: tuple[str, ...] = ("03/07", "03/08", "30/01")) -> None:
    """Write images in the parts of TUPAC16's archives; the first alone has mitoses."""
    for case in cases:
        part = 1 if case < "15" else 2
        write(root / f"mitoses_image_data_part_{part}" / f"{case}.tif", tissue(40, 50))
    truth = root / "mitoses_ground_truth" / f"{cases[0]}.csv"
    truth.parent.mkdir(parents=True)
    truth.write_text("12,31\n5,6\n")


def icpr14(root: Path) -> Path:
    """Write two frames of a case in a folder of the archive; return the first frame's truth."""
    for name in ("A03_00Aa", "A03_00Ab"):
        write(root / "A03" / "A03" / "frames" / "x40" / f"{name}.tiff", tissue(40, 50))
    truth = root / "A03" / "A03" / "mitosis" / "A03_00Aa_mitosis.csv"
    truth.parent.mkdir()
    truth.write_text("31,12,0.8\n")
    truth.with_name("A03_00Aa_not_mitosis.csv").write_text("1,1,0.2\n")
    return truth


def test_tupac16s_truth_is_found_in_the_folder_of_its_archive(tmp_path: Path) -> None:
    tupac16(tmp_path)
    entries = import_data("tupac16", tmp_path)
    assert [e.mitoses for e in entries] == ["known", "absent", "absent"]
    assert entries[0].points_px == [(31, 12), (6, 5)]
    assert [e.scanner for e in entries] == ["Aperio", "Aperio", "Leica"]
    assert import_folder(tmp_path) == (tmp_path, entries)


def test_tupac16_numbers_without_a_leading_nought_are_the_same(tmp_path: Path) -> None:
    write(tmp_path / "mitoses_image_data" / "3" / "07.tif", tissue(40, 50))
    (tmp_path / "mitoses_ground_truth" / "03").mkdir(parents=True)
    (tmp_path / "mitoses_ground_truth" / "03" / "07.csv").write_text("12,31\n")
    assert import_folder(tmp_path)[1][0].points_px == [(31, 12)]


def test_one_tupac16_truth_is_not_given_to_two_images(tmp_path: Path) -> None:
    tupac16(tmp_path)
    write(tmp_path / "mitoses-test-image-data" / "03" / "07.tif", tissue(40, 50))
    with pytest.raises(DataError, match="03/07 more than once"):
        import_data("tupac16", tmp_path)


def test_a_set_without_any_truth_is_not_free_of_mitoses(tmp_path: Path) -> None:
    write(tmp_path / "tupac16" / "01" / "02.tif", tissue(40, 50))
    write(tmp_path / "icpr12" / "A00_01.bmp", tissue(40, 50))
    icpr14(tmp_path / "icpr14").unlink()
    for kind, place in (
        ("tupac16", "mitoses_ground_truth/NN/MM.csv"),
        ("icpr12", "A00_01.csv"),
        ("icpr14", "mitosis/A03_00Aa_mitosis.csv"),
    ):
        with pytest.raises(DataError, match=f"no truth. Expected .*{place}"):
            import_data(kind, tmp_path / kind)


@pytest.mark.parametrize("kind", ["tupac16", "icpr14"])
def test_a_centre_of_one_number_is_an_error_that_names_its_file(kind: str, tmp_path: Path) -> None:
    if kind == "icpr14":
        icpr14(tmp_path).write_text("31,12,0.8\n31\n")
    else:
        tupac16(tmp_path)
        (tmp_path / "mitoses_ground_truth" / "03" / "07.csv").write_text("31\n")
    with pytest.raises(DataError, match=r"csv has the line '31': a centre needs two numbers"):
        import_data(kind, tmp_path)


def test_icpr14_is_read_from_its_archives_folders(tmp_path: Path) -> None:
    icpr14(tmp_path)
    entries = import_data("icpr14", tmp_path)
    assert [(e.mitoses, e.points_px) for e in entries] == [("known", [(31, 12)]), ("absent", [])]
    assert {e.patient for e in entries} == {"icpr14-03"}
    assert import_folder(tmp_path) == (tmp_path, entries)


def test_icpr12s_pictures_with_mitoses_drawn_in_are_left_alone(tmp_path: Path) -> None:
    for name in ("A00_00.jpg", "A00_00.bmp", "A00_01.jpg", "A00_01.png", "H00_00.jpg"):
        write(tmp_path / "A00" / name, tissue(40, 50))
        (tmp_path / "A00" / name).with_suffix(".csv").write_text("3,4,4,4\n")
    entries = import_data("icpr12", tmp_path)
    assert [e.image for e in entries] == ["A00/A00_00.bmp", "A00/A00_01.png", "A00/H00_00.jpg"]
    assert import_folder(tmp_path) == (tmp_path, entries)


def midog(root: Path, names: list[str], **more: str) -> list[str]:
    """Import MIDOG images of these names; return their scanners."""
    images = [
        {"id": k, "file_name": n, "width": 50, "height": 40, **more} for k, n in enumerate(names, start=1)
    ]
    (root / "MIDOG.json").write_text(json.dumps({"images": images, "annotations": []}))
    return [e.scanner for e in import_data("midog", root)]


def test_midog_2021s_scanners_are_told_by_its_numbers(tmp_path: Path) -> None:
    names = ["001.tiff", "050.tiff", "051.tiff", "150.tiff", "151.tiff"]
    expected = ["Hamamatsu XR", "Hamamatsu XR", "Hamamatsu S360", "Aperio CS2", "Leica GT450"]
    assert midog(tmp_path, names) == expected
    assert [e.mpp for e in import_data("midog", tmp_path)] == [0.23, 0.23, 0.23, 0.25, 0.26]


def test_scanners_of_other_midog_sets_are_not_guessed(tmp_path: Path) -> None:
    assert midog(tmp_path, ["001.tiff", "201.tiff"]) == ["", ""]
    assert midog(tmp_path, ["001.tiff", "case.tiff"]) == ["", ""]
    assert midog(tmp_path, ["001.tiff"], scanner="Another") == ["Another"]


def test_monusegs_instance_pngs_are_nuclei(tmp_path: Path) -> None:
    image, classes, _ = drawn()
    instances = cv2.connectedComponents((classes == 1).astype(np.uint8))[1].astype(np.uint16)
    write(tmp_path / "Tissue Images" / "TCGA-18-5592-01Z-00-DX1.tif", image)
    write(tmp_path / "Instances" / "TCGA-18-5592-01Z-00-DX1.png", instances)
    entries = import_data("monuseg", tmp_path)
    assert import_folder(tmp_path) == (tmp_path, entries)
    assert [(e.patient, e.nuclei_kind) for e in entries] == [("TCGA-18-5592", "instances")]
    assert problems_of(tmp_path, entries) == []
    assert np.array_equal(read_instances(tmp_path, entries[0]), instances)
    assert dice(load_sample(tmp_path, entries[0]).labels[..., NUCLEI] == 1, classes == 1) > 0.9


def shared(root: Path) -> None:
    """Write one image, or two, in each folder of ``../shared/data``."""
    write(root / "amibr" / "images" / "MIDOG21_6.jpg", tissue(128, 128))
    (root / "amibr" / "crops.csv").write_text(
        "file,dataset,slide,split,slide_x_px,slide_y_px,atypical,mitoses_px,votes\n"
        "images/MIDOG21_6.jpg,MIDOG21,002.tiff,test,4422,216,0,64 64;20 30,2/3\n"
    )
    mitoses = np.zeros((2084, 2084), np.uint16)
    mitoses[100:120, 200:230] = 1
    write(root / "icpr12" / "images" / "A01_02.jpg", tissue(2084, 2084))
    write(root / "icpr12" / "mitoses" / "A01_02.png", mitoses)
    (root / "icpr12" / "mitoses.csv").write_text("hpf,mitosis,x_px,y_px,area_px\n")
    write(root / "icpr12_unmarked" / "images" / "H02_03.jpg", tissue(2250, 2252))
    write(root / "icpr12_unmarked" / "unknown" / "H02_03.png", np.full((2250, 2252), 255, np.uint8))
    (root / "icpr12_unmarked" / "fields.csv").write_text(
        "field,scanner,slide,width_px,height_px,masked_places,listed_mitoses,masked_px\n"
        "H02_03,Hamamatsu,H02,2252,2250,1,1,9\n"
    )
    monuseg = root / "monuseg"
    for name in ("TCGA-18-5592-01Z-00-DX1", "TCGA-21-5784-01Z-00-DX1"):
        write(monuseg / "images" / f"{name}.jpg", tissue(1000, 1000))
    write(monuseg / "foreground" / "TCGA-18-5592-01Z-00-DX1.png", np.full((1000, 1000), 255, np.uint8))
    write(monuseg / "instances" / "TCGA-21-5784-01Z-00-DX1.png", np.full((1000, 1000), 3, np.uint16))
    (monuseg / "images.csv").write_text(
        "image,split,label,nuclei\nTCGA-18-5592-01Z-00-DX1,train,foreground,\nTCGA-21-5784-01Z-00-DX1,test,instances,1\n"
    )
    write(root / "mitos14" / "images" / "H07_01Aa.jpg", tissue(1485, 1663))
    (root / "mitos14" / "frames.csv").write_text(
        "frame,file,slide,split,width_px,height_px\nH07_01Aa,images/H07_01Aa.jpg,07,val,1663,1485\n"
    )
    (root / "mitos14" / "labels.csv").write_text(
        "frame,kind,x_px,y_px,agreement\nH07_01Aa,mitosis,1206.0,701.0,0.8\n"
        "H07_01Aa,look_alike,300.0,400.0,0.2\nH07_01Aa,unknown,900.0,200.0,\n"
    )
    write(root / "midesec" / "images" / "P00_00.jpg", tissue(1024, 1024))
    (root / "midesec" / "fields.csv").write_text(
        "field,file,group,split,width_px,height_px\nP00_00,images/P00_00.jpg,g04,train,1024,1024\n"
    )
    (root / "midesec" / "mitoses.csv").write_text(
        "field,mitosis,polygon_xy_px\nP00_00,1,100 200 140 200 140 230 100 230\n"
    )
    write(root / "nuclei" / "images" / "consep_1.jpg", tissue(1000, 1000))
    write(root / "nuclei" / "instances" / "consep_1.png", np.full((1000, 1000), 3, np.uint16))
    (root / "nuclei" / "unknown").mkdir()
    (root / "nuclei" / "images.csv").write_text(
        "image,set,patient,split,mpp,width_px,height_px,nuclei,mitoses\n"
        "consep_1,consep,consep-1,train,0.275,1000,1000,1,absent\n"
    )


def test_the_shared_folders_are_read_with_their_splits(tmp_path: Path) -> None:
    shared(tmp_path)
    entries = import_data("shared", tmp_path)
    assert problems_of(tmp_path, entries) == []
    told = [(e.dataset, e.split, e.patient, e.mitoses, e.nuclei_kind) for e in entries]
    assert told == [
        ("amibr", "test", "midog-002", "known", ""),
        ("icpr12", "val", "icpr12-01", "known", ""),
        ("icpr12_unmarked", "train", "icpr12-02", "absent", ""),
        ("monuseg", "train", "TCGA-18-5592", "unknown", "foreground"),
        ("monuseg", "test", "TCGA-21-5784", "unknown", "instances"),
        ("mitos14", "val", "mitos14-07", "known", ""),
        ("midesec", "train", "midesec-g04", "known", ""),
        ("consep", "train", "consep-1", "absent", "instances"),
    ]
    assert entries[0].points_px == [(64, 64), (20, 30)]
    assert mitosis_truth(tmp_path, entries[1], load_sample(tmp_path, entries[1])).tolist() == [[215, 110]]
    assert (load_sample(tmp_path, entries[2]).labels == IGNORE).all()
    assert (load_sample(tmp_path, entries[3]).labels[..., NUCLEI] == 1).all()


def test_readers_votes_look_alikes_and_doubtful_places_are_kept(tmp_path: Path) -> None:
    shared(tmp_path)
    crop, *_, frame, field, _ = import_data("shared", tmp_path)
    assert (crop.mitoses_votes, frame.mitoses_votes, frame.look_alikes) == ("0.667;", "0.8", "300 400")
    sample = load_sample(tmp_path, frame)
    scale = frame.mpp / sample.mpp
    known = sample.labels[..., MITOSES] != IGNORE
    assert not known[round(200 * scale), round(900 * scale)]
    assert known[round(200 * scale), round(900 * scale) + 45]
    truth = mitosis_truth(tmp_path, field, load_sample(tmp_path, field))
    assert truth.round().tolist() == [[120, 216]]


def test_each_shared_folder_is_known_by_its_table(tmp_path: Path) -> None:
    shared(tmp_path)
    entries = import_data("shared", tmp_path)
    assert import_folder(tmp_path) == (tmp_path, entries)
    for name in ("amibr", "icpr12", "icpr12_unmarked", "monuseg", "mitos14", "midesec"):
        assert import_folder(tmp_path / name) == (tmp_path, [e for e in entries if e.dataset == name])


def test_a_patient_of_amibr_is_known_again_in_the_set_that_the_crop_was_cut_from(tmp_path: Path) -> None:
    shared(tmp_path / "shared")
    table = tmp_path / "shared" / "amibr" / "crops.csv"
    table.write_text(
        table.read_text() + "images/MIDOG21_6.jpg,TUPAC16,03_stitched1.tif,test,1,1,0,64 64,3/3\n"
    )
    (tmp_path / "midog").mkdir()
    published("tupac16", tmp_path / "tupac16")
    published("midog", tmp_path / "midog")
    midog = tmp_path / "midog" / "MIDOG.json"
    midog.write_text(midog.read_text().replace("101.tiff", "002.tiff"))
    crops = [e for e in import_data("shared", tmp_path / "shared") if e.dataset == "amibr"]
    whole = import_data("midog", tmp_path / "midog") + import_data("tupac16", tmp_path / "tupac16")
    assert [e.patient for e in whole] == [e.patient for e in crops]
    index = [*crops, *(e.model_copy(update={"split": "train"}) for e in whole)]
    problems = " ".join(problems_of(tmp_path, index))
    assert "Patient midog-002 is in the splits test, train." in problems
    assert "Patient tupac16-03 is in the splits test, train." in problems


def test_a_shared_image_that_is_missing_is_named(tmp_path: Path) -> None:
    shared(tmp_path)
    (tmp_path / "monuseg" / "images" / "TCGA-21-5784-01Z-00-DX1.jpg").unlink()
    with pytest.raises(DataError, match="no image TCGA-21-5784-01Z-00-DX1"):
        import_data("shared", tmp_path)


def test_a_shared_table_that_lacks_a_column_is_an_error(tmp_path: Path) -> None:
    shared(tmp_path)
    (tmp_path / "amibr" / "crops.csv").write_text("file,dataset\nimages/MIDOG21_6.jpg,MIDOG21\n")
    with pytest.raises(DataError, match="lacks the columns slide, split, mitoses_px, votes"):
        import_data("shared", tmp_path)


@pytest.mark.parametrize(
    ("table", "right", "wrong"),
    [
        ("amibr/crops.csv", ",test,", ",holdout,"),
        ("amibr/crops.csv", "002.tiff", "abc.tiff"),
        ("amibr/crops.csv", "64 64;20 30", "64;20 30"),
        ("amibr/crops.csv", "2/3", "2"),
        ("midesec/fields.csv", ",1024,1024", ",1024,high"),
        ("mitos14/frames.csv", ",val,", ",choose,"),
        ("nuclei/images.csv", "0.275", "275"),
        ("icpr12_unmarked/fields.csv", "2252", "wide"),
        ("icpr12_unmarked/fields.csv", "H02_03,", "X02_03,"),
        ("icpr12_unmarked/fields.csv", "H02_03,", ","),
        ("monuseg/images.csv", ",train,", ",learn,"),
    ],
)
def test_a_shared_tables_line_that_makes_no_sense_is_told_by_its_number(
    table: str, right: str, wrong: str, tmp_path: Path
) -> None:
    shared(tmp_path)
    path = tmp_path / table
    path.write_text(path.read_text().replace(right, wrong))
    with pytest.raises(DataError, match=rf"{path.name}, line 2"):
        import_data("shared", tmp_path)


@pytest.mark.parametrize("points", ["1 2 3;4 5", "1;2", "a b", "nan 3"])
def test_an_indexs_points_that_are_none_are_told_by_their_line(points: str, tmp_path: Path) -> None:
    tupac16(tmp_path)
    write_index(tmp_path / "i.csv", import_data("tupac16", tmp_path))
    (tmp_path / "i.csv").write_text((tmp_path / "i.csv").read_text().replace("31 12;6 5", points))
    with pytest.raises(DataError, match=r"line 2: .*not made of points"):
        read_index(tmp_path / "i.csv")
