"""Slides as people really have them: whole, and odd in ways that public reports describe; drawn, so that no pixel is a patient's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from wsi_minugan.geometry import Box
from wsi_minugan.slides.synthetic import SyntheticSlide

TILE = 256
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
AT_40X = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
PAGE = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "deflate", "metadata": None, **AT_40X}


class OddSlides:
    """Writers of slides that are not as they should be."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    @staticmethod
    def smaller(image: np.ndarray, factor: int) -> np.ndarray:
        size = (image.shape[1] // factor, image.shape[0] // factor)
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    @property
    def levels(self) -> list[np.ndarray]:
        return [self.smaller(self.image, k) for k in (2, 4, 8, 16)]

    @staticmethod
    def padded(image: np.ndarray, value: int = 255) -> np.ndarray:
        gaps = [(0, -n % TILE) for n in image.shape[:2]]
        return np.pad(image, [*gaps, (0, 0)], constant_values=value)

    @staticmethod
    def tiles(image: np.ndarray) -> list[np.ndarray]:
        image = np.pad(image, [(0, -n % TILE) for n in image.shape[:2]] + [(0, 0)], mode="edge")
        places = [(y, x) for y in range(0, image.shape[0], TILE) for x in range(0, image.shape[1], TILE)]
        return [np.ascontiguousarray(image[y : y + TILE, x : x + TILE]) for y, x in places]

    @staticmethod
    def jpeg(tile: np.ndarray, ycc: bool = True, marked: bool = True) -> bytes:
        colours = "YCBCR" if ycc else "RGB"
        data = bytes(
            imagecodecs.jpeg8_encode(
                tile, level=95, colorspace="RGB", outcolorspace=colours, subsampling="444"
            )
        )
        if marked:
            return data
        length = int.from_bytes(data[4:6], "big")
        return data[:2] + data[4 + length :]

    def pages(self, path: Path, *pages: np.ndarray, **options: object) -> Path:
        """Write pages: the first of full size, the others flagged as reduced."""
        if "compression" not in options:
            options["compressionargs"] = {"level": 1}  # as good for a test, and three times as fast
        with tifffile.TiffWriter(path) as tif:
            for k, page in enumerate(pages):
                tif.write(page, **PAGE | ({"subfiletype": 1} if k else {}) | options)
        return path

    def stored(
        self,
        path: Path,
        tiles: Iterable[bytes],
        levels: Sequence[np.ndarray] = (),
        image: np.ndarray | None = None,
        **options: object,
    ) -> Path:
        """Write level 0 from tiles as they are stored, and whole lower levels."""
        shape = (self.image if image is None else image).shape
        photometric = options.pop("photometric", "ycbcr")
        first = {**PAGE, "shape": shape, "dtype": np.uint8, "compression": "jpeg"}
        with tifffile.TiffWriter(path) as tif:
            tif.write(iter(tiles), **first | {"photometric": "ycbcr", "subsampling": (1, 1)} | options)
            for level in levels:
                tif.write(level, subfiletype=1, **PAGE)
        if photometric == "rgb":
            with tifffile.TiffFile(path, mode="r+b") as tif:
                tif.pages.first.tags["PhotometricInterpretation"].overwrite(2)
        return path

    def with_tile_bytes(self, path: Path, change: dict[int, object]) -> Path:
        """Change stored tiles of the first page in place: a function of their bytes for each."""
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tif:
            page = tif.pages[0]
            for index, function in change.items():
                start, size = page.dataoffsets[index], page.databytecounts[index]
                data[start : start + size] = function(bytes(data[start : start + size]))
        path.write_bytes(bytes(data))
        return path

    def dicom(self, path: Path, frames: list[bytes], syntax: str, colours: str, **more: object) -> Path:
        """Write a slide of one level."""
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import generate_uid

        def item(**values: object) -> Dataset:
            made = Dataset()
            for name, value in values.items():
                setattr(made, name, value)
            return made

        mpp = float(more.pop("mpp", 0.25))
        height, width = self.image.shape[:2]
        uid = generate_uid()
        values: dict[str, object] = {
            "SOPClassUID": WSI,
            "SOPInstanceUID": uid,
            **{
                name: generate_uid()
                for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
            },
            "Modality": "SM",
            "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": colours,
            "PlanarConfiguration": 0,
            "Rows": TILE,
            "Columns": TILE,
            "BitsAllocated": 8,
            "BitsStored": 8,
            "HighBit": 7,
            "PixelRepresentation": 0,
            "NumberOfFrames": len(frames),
            "TotalPixelMatrixRows": height,
            "TotalPixelMatrixColumns": width,
            "ImagedVolumeHeight": height * mpp / 1e3,
            "ImagedVolumeWidth": width * mpp / 1e3,
            "TotalPixelMatrixFocalPlanes": 1,
            "DimensionOrganizationType": "TILED_FULL",
            "NumberOfOpticalPaths": 1,
            "OpticalPathSequence": [item(OpticalPathIdentifier="0", ObjectiveLensPower=40)],
            "SharedFunctionalGroupsSequence": [
                item(PixelMeasuresSequence=[item(PixelSpacing=[mpp / 1e3, mpp / 1e3], SliceThickness=0.001)])
            ],
            "PixelData": encapsulate(frames),
        }
        refers_to = more.pop("refers_to", None)
        if refers_to:
            instance = item(ReferencedSOPClassUID=WSI, ReferencedSOPInstanceUID=generate_uid())
            values["ReferencedSeriesSequence"] = [
                item(SeriesInstanceUID=refers_to, ReferencedInstanceSequence=[instance])
            ]
        level = item(**values | more)
        level.file_meta = FileMetaDataset()
        level.file_meta.MediaStorageSOPClassUID, level.file_meta.MediaStorageSOPInstanceUID = WSI, uid
        level.file_meta.TransferSyntaxUID = syntax
        path.parent.mkdir(exist_ok=True)
        level.save_as(path, enforce_file_format=True)
        return path


def as_ycc(image: np.ndarray) -> np.ndarray:
    """Return the YCbCr values of RGB pixels."""
    y, cr, cb = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb), -1, 0)
    return np.ascontiguousarray(np.dstack([y, cb, cr]))


@pytest.fixture(scope="session")
def odd() -> OddSlides:
    """Return writers of odd slides, all of one drawing with six mitoses."""
    drawing = SyntheticSlide(1200, 1152, seed=11, mitoses=6, tissue_fraction=0.62)
    return OddSlides(drawing.draw(Box(0, 0, 1152, 1200)))


@pytest.fixture(scope="session")
def ycc():
    """Return the function that turns RGB into YCbCr."""
    return as_ycc
