"""From an index's entry to pixels: the image at the model's resolution, and its label map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.images import MPP_40X, compressed, read_mask, read_rgb
from minugan_training.data.index import Entry, points_of, polygons_of
from minugan_training.data.outlines import polygon_instances, read_monuseg_xml, read_pixel_lists
from minugan_training.data.weak_labels import weak_outlines

IGNORE = 255
"""A label that no loss looks at."""
NUCLEI, MITOSES, BOUNDARY = 0, 1, 2
_Label = TypeVar("_Label", bound=np.generic)
_TOLERANCE = 0.05
_BLACK = 6
_UNKNOWN_UM = 10.0


@dataclass(frozen=True)
class Sample:
    """An image and its labels.

    Attributes
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB at 0.25 um/px, or within 5 % of it.
    labels : ndarray of uint8, shape (h, w, 3)
        Nuclei, mitoses, boundary: 0, 1, or IGNORE.
    mpp : float
        um/px of both.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mpp: float

    def mitosis_centres(self) -> NDArray[np.float64]:
        """Return x, y of the labelled mitoses, shape ``(n, 2)``.

        Returns
        -------
        ndarray of float, shape (n, 2)
            In the sample's px; the centre of pixel 0 is at 0.
        """
        mask = (self.labels[..., MITOSES] == 1).astype(np.uint8)
        _, _, _, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
        return np.asarray(centres[1:], np.float64)


def load_sample(root: Path, entry: Entry, jpeg: int | None = None) -> Sample:
    """Read an entry's image and labels.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.
    jpeg : int, optional
        Quality at which the image is compressed before it is resampled.

    Returns
    -------
    Sample
        At the model's resolution.

    Raises
    ------
    DataError
        If a file is missing or cannot be read.
    """
    image = read_rgb(root / entry.image)
    region = _region(entry)
    image = np.ascontiguousarray(image[region])
    labels = np.full(image.shape, IGNORE, np.uint8)
    _mark_nuclei(root, entry, labels, region)
    _mark_mitoses(root, entry, labels, region)
    if entry.ignore:
        labels[read_mask(root / entry.ignore)[region] > 0] = IGNORE
    for x, y in points_of(entry.unknown_points):
        cv2.circle(labels, (round(x), round(y)), round(_UNKNOWN_UM / entry.mpp), (IGNORE,) * 3, -1)
    if entry.dataset == "amibr":
        labels[image.max(axis=2) < _BLACK] = IGNORE  # the border of crops at the image's edge
    if jpeg is not None:
        image = compressed(image, jpeg)
    sample = _at_model_resolution(image, labels, entry.mpp)
    if entry.mitoses == "known" and entry.points_px:
        _outline_weakly(sample, np.array(entry.points_px) * (entry.mpp / sample.mpp))
    return sample


def mitosis_truth(root: Path, entry: Entry, sample: Sample) -> NDArray[np.float64]:
    """Return the centres of an entry's mitoses in its sample's pixels, shape ``(n, 2)``; the centre of pixel 0 is at 0.5.

    An expert's outline of one mitosis may be in pieces (anaphase): it still is one. Where nothing is known, none is looked for.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.
    sample : Sample
        What `load_sample` returned of it.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y.
    """
    centres = _centres(root, entry, sample)
    h, w = sample.labels.shape[:2]
    x, y = np.clip(centres.astype(int), 0, (w - 1, h - 1)).T
    return np.asarray(centres[sample.labels[y, x, MITOSES] != IGNORE])


def _centres(root: Path, entry: Entry, sample: Sample) -> NDArray[np.float64]:
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
    """Return an entry's mitoses as an instance map in its own pixels, or None where they are not outlined one by one.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.

    Returns
    -------
    ndarray of int, shape (h, w), or None
        0 is background.

    Raises
    ------
    DataError
        If the label cannot be read.
    """
    if entry.mitoses != "known" or entry.mitoses_kind in {"points", "rgb"}:
        return None
    path = root / entry.mitoses_truth
    if entry.mitoses_kind == "polygons":
        return polygon_instances(polygons_of(entry.mitoses_truth), (entry.height_px, entry.width_px))
    if entry.mitoses_kind == "pixel-lists":
        return read_pixel_lists(path, _corner(entry))[_region(entry)]
    return read_mask(path)[_region(entry)]


def nucleus_instances(root: Path, entry: Entry) -> NDArray[np.integer] | None:
    """Return an entry's nuclei as an instance map in its own pixels, or None where they are not told apart.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.

    Returns
    -------
    ndarray of int, shape (h, w), or None
        0 is background.

    Raises
    ------
    DataError
        If the label cannot be read.
    """
    path = root / entry.nuclei_truth
    if entry.nuclei_kind == "monuseg-xml":
        return read_monuseg_xml(path, _corner(entry))[_region(entry)]
    return read_mask(path)[_region(entry)] if entry.nuclei_kind == "instances" else None


def read_instances(root: Path, entry: Entry) -> NDArray[np.integer] | None:
    """Return an entry's nuclei as an instance map in its sample's pixels, or None where they are not told apart.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entry : Entry
        The image.

    Returns
    -------
    ndarray of int, shape (h, w), or None
        0 is background.
    """
    instances = nucleus_instances(root, entry)
    return None if instances is None else in_samples_pixels(instances, entry)


def in_samples_pixels(instances: NDArray[np.integer], entry: Entry) -> NDArray[np.integer]:
    """Return an instance map that is in an entry's own pixels in those of its sample.

    Parameters
    ----------
    instances : ndarray of int, shape (h, w)
        In the image's own px.
    entry : Entry
        The image.

    Returns
    -------
    ndarray of int
        Enlarged by the nearest neighbour.
    """
    return _enlarged(instances, enlargement(entry.mpp))


def _enlarged(labels: NDArray[_Label], factor: float) -> NDArray[_Label]:
    """Return labels enlarged as OpenCV enlarges the image: each pixel has the label at its middle.

    OpenCV's own nearest neighbour takes the label at the pixel's corner, which moves a map by half a pixel.
    """
    if factor == 1:
        return labels
    rows, columns = (
        np.minimum((np.arange(round(n * factor)) + 0.5) / factor, n - 1).astype(int) for n in labels.shape[:2]
    )
    return labels[np.ix_(rows, columns)]


def _region(entry: Entry) -> tuple[slice, slice]:
    bottom, right = _corner(entry)
    return slice(entry.y_px, bottom), slice(entry.x_px, right)


def _corner(entry: Entry) -> tuple[int, int]:
    """Return y, x of the region's lower right corner: the least shape of an image that has the region."""
    return entry.y_px + entry.height_px, entry.x_px + entry.width_px


def enlargement(mpp: float) -> float:
    """Return by how much an image is enlarged to reach the model's resolution; 1 where it is near enough.

    Parameters
    ----------
    mpp : float
        um per px of the image.

    Returns
    -------
    float
        Factor of its sides.
    """
    factor = mpp / MPP_40X
    return 1.0 if abs(factor - 1) <= _TOLERANCE else factor


def _at_model_resolution(image: NDArray[np.uint8], labels: NDArray[np.uint8], mpp: float) -> Sample:
    factor = enlargement(mpp)
    if factor == 1:
        return Sample(image, labels, mpp)
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind)
    return Sample(np.asarray(image, np.uint8), _enlarged(labels, factor), MPP_40X)


def _mark_nuclei(root: Path, entry: Entry, labels: NDArray[np.uint8], region: tuple[slice, slice]) -> None:
    if entry.nuclei == "unknown":
        return
    labels[..., NUCLEI] = 0
    if entry.nuclei == "absent":
        return
    path = root / entry.nuclei_truth
    instances = nucleus_instances(root, entry)
    if instances is not None:
        touching = boundary_of(instances)
        inside = instances > 0
        labels[..., NUCLEI] = inside & ~touching
        labels[..., BOUNDARY] = touching
    elif entry.nuclei_kind == "rgb":
        colours = read_rgb(path)[region]
        labels[..., NUCLEI] = colours[..., 0] > 127
        labels[..., BOUNDARY] = colours[..., 2] > 127
        inside = labels[..., NUCLEI] > 0
    else:
        inside = read_mask(path)[region] > 0
        labels[inside, NUCLEI] = 1
    # Outside nuclei there are no mitoses either; inside, one may be.
    if entry.mitoses == "unknown":
        labels[..., MITOSES] = np.where(inside, IGNORE, 0)


def _mark_mitoses(root: Path, entry: Entry, labels: NDArray[np.uint8], region: tuple[slice, slice]) -> None:
    if entry.mitoses == "unknown":
        return
    found = np.zeros(labels.shape[:2], bool)
    if entry.mitoses == "known":
        instances = mitosis_instances(root, entry)
        if instances is not None:
            found = instances > 0
        elif entry.mitoses_kind == "rgb":
            found = read_rgb(root / entry.mitoses_truth)[region][..., 1] > 127
    labels[..., MITOSES] = found
    # A mitosis is no interphase nucleus and no boundary.
    labels[found, NUCLEI] = 0
    labels[found, BOUNDARY] = 0


def _outline_weakly(sample: Sample, points_px: NDArray[np.float64]) -> None:
    """Mark mitoses of which the centres alone are known; at the model's resolution, for which the outlines' reach is made."""
    found = weak_outlines(sample.image, [(x, y) for x, y in points_px.tolist()]) > 0
    sample.labels[found & (sample.labels[..., MITOSES] != IGNORE)] = (0, 1, 0)


def boundary_of(instances: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where nuclei touch or almost touch (within 2 px), so that a network can part them.

    Parameters
    ----------
    instances : ndarray of int, shape (h, w)
        0 is background.

    Returns
    -------
    ndarray of bool, shape (h, w)
        True between two nuclei.
    """
    kernel = np.ones((3, 3), np.uint8)
    values = instances.astype(np.float32)
    highest = cv2.dilate(values, kernel, iterations=2)
    lowest = cv2.erode(np.where(values > 0, values, np.float32(1e9)), kernel, iterations=2)
    return np.asarray((highest > 0) & (lowest < 1e9) & (highest != lowest), np.bool_)
