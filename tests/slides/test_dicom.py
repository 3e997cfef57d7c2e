"""DICOM slides (VL Whole Slide Microscopy, TILED_FULL, baseline JPEG) are opened by OpenSlide like any other."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from wsi_minugan.errors import SlideUnreadableError
from wsi_minugan.geometry import Box
from wsi_minugan.slides.inputs import expand_inputs
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.reader import resolve_mpp
from wsi_minugan.slides.synthetic import SyntheticSlide

pydicom = pytest.importorskip("pydicom", reason="needs pydicom, of the extra [dev]")

SLIDE_MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6"
SURNAME = "Zyxomma"
TILE_PX = 256


def frames_of(pixels: np.ndarray) -> list[bytes]:
    """Return the encoded tiles, row by row."""
    frames = []
    for y in range(0, pixels.shape[0], TILE_PX):
        for x in range(0, pixels.shape[1], TILE_PX):
            part = pixels[y : y + TILE_PX, x : x + TILE_PX]
            tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            options = {"colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": "422"}
            frames.append(bytes(imagecodecs.jpeg8_encode(tile, level=95, **options)))
    return frames


def item(**values: object) -> object:
    found = pydicom.dataset.Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def write_level(path: Path, pixels: np.ndarray, mpp: float, uids: dict[str, str], derived: bool) -> None:
    """Write one level of a slide: one instance of its series."""
    uid, frames = pydicom.uid.generate_uid(), frames_of(pixels)
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SLIDE_MICROSCOPY, uid
    meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    spacing = item(PixelSpacing=[mpp / 1000, mpp / 1000], SliceThickness=0.001)
    level = item(
        SOPClassUID=SLIDE_MICROSCOPY,
        SOPInstanceUID=uid,
        **uids,
        PatientName=f"{SURNAME}^Petiolatum",
        Modality="SM",
        ImageType=[
            "DERIVED" if derived else "ORIGINAL",
            "PRIMARY",
            "VOLUME",
            "RESAMPLED" if derived else "NONE",
        ],
        SamplesPerPixel=3,
        PhotometricInterpretation="YBR_FULL_422",
        PlanarConfiguration=0,
        Rows=TILE_PX,
        Columns=TILE_PX,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        NumberOfFrames=len(frames),
        TotalPixelMatrixRows=pixels.shape[0],
        TotalPixelMatrixColumns=pixels.shape[1],
        TotalPixelMatrixFocalPlanes=1,
        DimensionOrganizationType="TILED_FULL",
        NumberOfOpticalPaths=1,
        OpticalPathSequence=[item(OpticalPathIdentifier="0", ObjectiveLensPower=40)],
        SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[spacing])],
        PixelData=pydicom.encaps.encapsulate(frames),
    )
    level.file_meta = meta
    level.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return SyntheticSlide(1000, 800, seed=3, mitoses=4, tissue_fraction=0.7).draw(Box(0, 0, 800, 1000))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> Path:
    """Return a folder with the two levels of one slide."""
    folder = tmp_path_factory.mktemp("dicom") / "case 7"
    folder.mkdir()
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    uids = {name: pydicom.uid.generate_uid() for name in names}
    small = pixels.reshape(200, 4, 250, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
    write_level(folder / "level0.dcm", pixels, 0.25, uids, derived=False)
    write_level(folder / "level1.dcm", small, 1.0, uids, derived=True)
    return folder


def test_a_series_of_a_folder_is_one_slide_named_after_it(series: Path) -> None:
    (found,) = expand_inputs([str(series)])
    assert found.slide_id == "case 7"
    assert len(open_slide(found.path).info.levels) == 2


@pytest.mark.parametrize("name", ["level0.dcm", "level1.dcm"])
def test_any_file_of_a_series_opens_the_whole_slide(series: Path, pixels: np.ndarray, name: str) -> None:
    reader = open_slide(series / name)
    info = reader.info
    assert (info.width_px, info.height_px, info.vendor, info.objective) == (1000, 800, "dicom", 40.0)
    assert [(lv.width_px, lv.height_px, lv.downsample) for lv in info.levels] == [
        (1000, 800, 1),
        (250, 200, 4),
    ]
    assert resolve_mpp(info, None) == (pytest.approx(0.25), "vendor property")
    found = reader.read_level(0, Box(300, 200, 400, 500)).astype(int)
    assert np.abs(found - pixels[300:700, 200:700]).mean() < 2


def test_a_dicom_slide_is_inspected_without_its_patient(series: Path, run_command) -> None:
    done = run_command("inspect", series / "level0.dcm")
    assert done.returncode == 0, done.stderr
    assert "1000 x 800 px" in done.stdout
    assert "0.2500 um/px (vendor property)" in done.stdout
    assert SURNAME not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_dicom_slide_is_analysed_and_no_file_names_its_patient(
    tmp_path: Path, series: Path, run_command
) -> None:
    done = run_command("run", series, "-o", tmp_path / "o", "--block", "512")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "case 7" / "manifest.json").is_file()
    for path in (p for p in (tmp_path / "o").rglob("*") if p.is_file()):
        assert SURNAME.encode() not in path.read_bytes(), path


def test_a_truncated_dicom_slide_says_so(tmp_path: Path, series: Path) -> None:
    data = (series / "level0.dcm").read_bytes()
    (tmp_path / "short.dcm").write_bytes(data[:600])
    with pytest.raises(SlideUnreadableError, match="truncated"):
        open_slide(tmp_path / "short.dcm")


def test_values_against_dicoms_rules_are_no_lines_on_the_display(
    tmp_path: Path, series: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    # Found by fuzzing: pydicom both warns and logs, once for each value and file.
    head = pydicom.dcmread(series / "level0.dcm", stop_before_pixels=True)
    uid = str(head.SeriesInstanceUID).encode()
    data = (series / "level0.dcm").read_bytes().replace(uid, uid[:9] + b"x" + uid[10:])
    (tmp_path / "a.dcm").write_bytes(data)
    (found,) = expand_inputs([str(tmp_path)])
    open_slide(found.path).close()
    assert not recwarn.list
    assert not caplog.records
