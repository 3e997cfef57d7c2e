"""From an index's entry to pixels: the image at the model's resolution, and its label map."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from minugan_training.importers import MPP_40X
from minugan_training.index import Entry
from minugan_training.weak import weak_outlines
from wsi_minugan.errors import DataError

UNKNOWN = 255
"""A label that no loss looks at."""
NUCLEI, MITOSES, BOUNDARY = 0, 1, 2
_TOLERANCE = 0.05
_BLACK = 6
_UNREADABLE = (
    tifffile.TiffFileError, struct.error, cv2.error, OSError, ValueError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, MemoryError,
)  # fmt: skip
"""What the readers raise on a damaged file; a garbled header may ask for more memory than there is."""


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    Attributes
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB at 0.25 um/px, or within 5 % of it.
    labels : ndarray of uint8, shape (h, w, 3)
        Nuclei, mitoses, boundary: 0, 1, or UNKNOWN.
    mpp : float
        um/px of both.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mpp: float

    def mitosis_centres(self) -> NDArray[np.float64]:
        """Return x, y of the labelled mitoses, shape ``(n, 2)``."""
        mask = (self.labels[..., MITOSES] == 1).astype(np.uint8)
        _, _, _, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
        return np.asarray(centres[1:], np.float64)


def load_sample(root: Path, entry: Entry) -> Sample:
    """Read an entry's image and labels.

    Raises
    ------
    DataError
        If a file is missing or cannot be read.
    """
    image = read_rgb(root / entry.image)
    region = (slice(entry.y_px, entry.y_px + entry.height_px), slice(entry.x_px, entry.x_px + entry.width_px))
    image = np.ascontiguousarray(image[region])
    labels = np.full(image.shape, UNKNOWN, np.uint8)
    _mark_nuclei(root, entry, labels, region)
    _mark_mitoses(root, entry, image, labels, region)
    if entry.ignore:
        labels[_read_mask(root / entry.ignore)[region] > 0] = UNKNOWN
    if entry.dataset == "amibr":
        labels[image.max(axis=2) < _BLACK] = UNKNOWN  # the border of crops at the image's edge
    return _at_model_resolution(image, labels, entry.mpp)


def mitosis_truth(root: Path, entry: Entry, sample: Sample) -> NDArray[np.float64]:
    """Return the centres of an entry's mitoses in its sample's pixels, shape ``(n, 2)``; the centre of pixel 0 is at 0.5.

    An expert's outline of one mitosis may be in pieces (anaphase): it still is one.
    """
    factor = entry.mpp / sample.mpp
    if entry.mitoses != "known":
        return np.zeros((0, 2))
    if entry.mitoses_kind == "points":
        return np.array(entry.points_px, np.float64).reshape(-1, 2) * factor
    if entry.mitoses_kind == "rgb":
        return sample.mitosis_centres() + 0.5
    instances = mitosis_instances(root, entry)
    if instances is None:
        return np.zeros((0, 2))
    numbers = np.unique(instances[instances > 0])
    centres = [np.argwhere(instances == n).mean(axis=0)[::-1] + 0.5 for n in numbers]
    return np.array(centres, np.float64).reshape(-1, 2) * factor


def mitosis_instances(root: Path, entry: Entry) -> NDArray[np.integer] | None:
    """Return an entry's mitoses as an instance map in its own pixels, or None where they are not outlined one by one."""
    if entry.mitoses != "known" or entry.mitoses_kind in {"points", "rgb"}:
        return None
    path = root / entry.mitoses_truth
    shape = (entry.y_px + entry.height_px, entry.x_px + entry.width_px)
    instances = read_pixel_lists(path, shape) if entry.mitoses_kind == "pixel-lists" else _read_mask(path)
    return np.asarray(instances[entry.y_px : shape[0], entry.x_px : shape[1]])


def _at_model_resolution(image: NDArray[np.uint8], labels: NDArray[np.uint8], mpp: float) -> Sample:
    factor = mpp / MPP_40X
    if abs(factor - 1) <= _TOLERANCE:
        return Sample(image, labels, mpp)
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)
    labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return Sample(image, labels, MPP_40X)


def _mark_nuclei(root: Path, entry: Entry, labels: NDArray[np.uint8], region: tuple[slice, slice]) -> None:
    if entry.nuclei == "unknown":
        return
    labels[..., NUCLEI] = 0
    if entry.nuclei == "absent":
        return
    path = root / entry.nuclei_truth
    if entry.nuclei_kind == "foreground":
        inside = _read_mask(path)[region] > 0
        labels[inside, NUCLEI] = 1
    elif entry.nuclei_kind == "rgb":
        colours = read_rgb(path)[region]
        labels[..., NUCLEI] = colours[..., 0] > 127
        labels[..., BOUNDARY] = colours[..., 2] > 127
        inside = labels[..., NUCLEI] > 0
    else:
        instances = (
            read_monuseg_xml(path, labels.shape[:2])
            if entry.nuclei_kind == "monuseg-xml"
            else _read_mask(path)[region]
        )
        touching = boundary_of(instances)
        inside = instances > 0
        labels[..., NUCLEI] = inside & ~touching
        labels[..., BOUNDARY] = touching
    # Outside nuclei there are no mitoses either; inside, one may be.
    if entry.mitoses == "unknown":
        labels[..., MITOSES] = np.where(inside, UNKNOWN, 0)


def _mark_mitoses(
    root: Path, entry: Entry, image: NDArray[np.uint8], labels: NDArray[np.uint8], region: tuple[slice, slice]
) -> None:
    if entry.mitoses == "unknown":
        return
    found = np.zeros(image.shape[:2], bool)
    if entry.mitoses == "known":
        instances = mitosis_instances(root, entry)
        if instances is not None:
            found = instances > 0
        elif entry.mitoses_kind == "points":
            found = weak_outlines(image, entry.points_px) > 0
        else:
            found = read_rgb(root / entry.mitoses_truth)[region][..., 1] > 127
    labels[..., MITOSES] = found
    # A mitosis is no interphase nucleus and no boundary.
    labels[found, NUCLEI] = 0
    labels[found, BOUNDARY] = 0


def read_instances(root: Path, entry: Entry) -> NDArray[np.integer] | None:
    """Return an entry's nuclei as an instance map, or None where they are not told apart."""
    if entry.nuclei_kind == "monuseg-xml":
        return read_monuseg_xml(root / entry.nuclei_truth, (entry.height_px, entry.width_px))
    return _read_mask(root / entry.nuclei_truth) if entry.nuclei_kind == "instances" else None


def boundary_of(instances: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where nuclei touch or almost touch (within 2 px), so that a network can part them."""
    kernel = np.ones((3, 3), np.uint8)
    values = instances.astype(np.float32)
    highest = cv2.dilate(values, kernel, iterations=2)
    lowest = cv2.erode(np.where(values > 0, values, np.float32(1e9)), kernel, iterations=2)
    return np.asarray((highest > 0) & (lowest < 1e9) & (highest != lowest), np.bool_)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB; raises DataError."""
    tiff = _is_tiff(path)
    try:
        picture = tifffile.imread(path) if tiff else cv2.imread(str(path), cv2.IMREAD_COLOR)
    except _UNREADABLE as e:
        raise DataError(f"The image {path} cannot be read: {e}. Copy it again.") from e
    if picture is None or picture.ndim != 3 or not (tiff or _is_whole(path)):
        raise DataError(f"The image {path} cannot be read. Copy it again.")
    return np.ascontiguousarray(picture[..., :3] if tiff else picture[..., ::-1], np.uint8)


def _is_whole(path: Path) -> bool:
    """Return whether a file, if a JPEG, has its end: OpenCV paints what is missing grey and says nothing."""
    data = path.read_bytes()
    return not data.startswith(b"\xff\xd8") or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _is_tiff(path: Path) -> bool:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the data's folder.")
    return path.suffix.lower() in {".tif", ".tiff"}


def _read_mask(path: Path) -> NDArray[np.integer]:
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if mask is None:
        raise DataError(f"The label {path} cannot be read. Check the data's folder.")
    return np.asarray(mask if mask.ndim == 2 else mask[..., 0])


def read_pixel_lists(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Read ICPR 2012's lines of ``x,y,x,y,…``, one a mitosis, as an instance map."""
    out = np.zeros(shape[:2], np.uint16)
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        for k, line in enumerate(lines, start=1):
            values = np.array([int(float(v)) for v in line.split(",") if v.strip()])
            x, y = values[0::2], values[1::2]
            good = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
            out[y[good], x[good]] = k
    except (OSError, ValueError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e
    return out


def read_monuseg_xml(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Read MoNuSeg's outlines (Aperio ImageScope XML) as an instance map."""
    out = np.zeros(shape[:2], np.uint16)
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
            raise DataError(f"{path} declares entities, which outlines do not need; it is not read.")
        regions = ElementTree.fromstring(text).iter("Region")  # noqa: S314 - entities are refused above
        for k, part in enumerate(regions, start=1):
            corners = [(float(v.get("X", "nan")), float(v.get("Y", "nan"))) for v in part.iter("Vertex")]
            if len(corners) >= 3:
                cv2.fillPoly(out, [np.rint(np.array(corners)).astype(np.int32)], k)
    except (OSError, ElementTree.ParseError, ValueError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e
    return out
