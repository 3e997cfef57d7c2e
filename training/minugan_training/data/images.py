"""Image files of data sets: which of a folder's they are, their sizes, their pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import DataError

MPP_40X = 0.25
ICPR12_MPP = {"A": 0.2456, "H": 0.2273}
"""um/px of ICPR's two scanners, by the first letter of a file's name."""
SUBSAMPLED = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
"""JPEG's colours at half the resolution in x and y, as most scanners store them."""

_BY_FAITH = (".bmp", ".tif", ".tiff", ".png", ".jpeg", ".jpg")
_TAIL_BYTES = 4096
_END_OF_JPEG = b"\xff\xd9"


def list_images(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    list of Path
        By their endings.
    """
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in _BY_FAITH)


def one_for_each(images: Iterable[Path], key: Callable[[Path], Hashable]) -> list[Path]:
    """Return one image for each key, in order: of several the one without loss, a JPEG only where there is no other.

    Parameters
    ----------
    images : iterable of Path
        The candidates.
    key : callable
        Images with the same key show the same.

    Returns
    -------
    list of Path
        Sorted.
    """
    chosen: dict[Hashable, Path] = {}
    for image in sorted(images, key=lambda p: (_BY_FAITH.index(p.suffix.lower()), p)):
        chosen.setdefault(key(image), image)
    return sorted(chosen.values())


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image.

    Parameters
    ----------
    path : Path
        The image.

    Returns
    -------
    tuple of int
        px.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    if _is_tiff(path):
        # Here, because a machine that trains from a pack has no tifffile and reads no TIFF.
        from minugan_training.data.tiff_images import tiff_size

        return tiff_size(path)
    picture = _decoded(path, cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise DataError(f"The image {path} cannot be read. Copy it again.")
    return int(picture.shape[1]), int(picture.shape[0])


def compressed(image: NDArray[np.uint8], quality: int, subsampling: int = SUBSAMPLED) -> NDArray[np.uint8]:
    """Return an RGB image as it comes back from a JPEG.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    quality : int
        0 to 100.
    subsampling : int
        OpenCV's name of the colours' resolution; by default it is halved in x and y, as most scanners do.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.
    """
    # OpenCV takes blue for the first channel, and JPEG keeps the colours less well than the brightness.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, subsampling]
    _, data = cv2.imencode(".jpg", image[..., ::-1], options)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def soften_colours(image: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    """Return an RGB image whose colours are blurred, by a Gaussian of `sigma_px`, and whose brightness is not.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    sigma_px : float
        Standard deviation of the Gaussian.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.
    """
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    parts[..., 1:] = cv2.GaussianBlur(parts[..., 1:], (0, 0), sigma_px)
    return np.asarray(cv2.cvtColor(parts, cv2.COLOR_YCrCb2RGB), np.uint8)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB.

    Parameters
    ----------
    path : Path
        The image.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        As it is stored; nothing is scaled.

    Raises
    ------
    DataError
        If it is missing, cut short, or not a colour image.
    """
    picture = _tiff_picture(path) if _is_tiff(path) else _decoded(path, cv2.IMREAD_COLOR)
    if picture is None or picture.ndim != 3:
        raise DataError(f"The image {path} cannot be read. Copy it again.")
    if path.suffix.lower() in {".jpg", ".jpeg"} and not _jpeg_ends(path):
        raise DataError(f"The image {path} is cut short. Copy it again.")
    return np.ascontiguousarray(picture[..., :3] if _is_tiff(path) else picture[..., ::-1], np.uint8)


def read_mask(path: Path) -> NDArray[np.integer]:
    """Read a label image of one channel, shape ``(h, w)``; raises DataError.

    Parameters
    ----------
    path : Path
        The label image.

    Returns
    -------
    ndarray of int, shape (h, w)
        As it is stored.

    Raises
    ------
    DataError
        If it is missing, or cannot be read.
    """
    mask = _decoded(path, cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if mask is None:
        raise DataError(f"The label {path} cannot be read. Check the data's folder.")
    return np.asarray(mask if mask.ndim == 2 else mask[..., 0])


def _is_tiff(path: Path) -> bool:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the data's folder.")
    return path.suffix.lower() in {".tif", ".tiff"}


def _decoded(path: Path, flags: int) -> NDArray[Any] | None:
    """Return what OpenCV decodes, or None where it cannot."""
    try:
        picture: NDArray[Any] | None = cv2.imread(str(path), flags)
    except (cv2.error, MemoryError):
        return None
    return picture


def _tiff_picture(path: Path) -> NDArray[Any]:
    # Here, because a machine that trains from a pack has no tifffile and reads no TIFF.
    from minugan_training.data.tiff_images import read_tiff

    return read_tiff(path)


def _jpeg_ends(path: Path) -> bool:
    """Return whether a JPEG has its end; OpenCV paints what is missing grey, without an error."""
    with path.open("rb") as f:
        f.seek(max(0, path.stat().st_size - _TAIL_BYTES), os.SEEK_SET)
        return _END_OF_JPEG in f.read()
