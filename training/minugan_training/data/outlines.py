"""Outlines that data sets publish as text: ICPR 2012's lists of pixels, MoNuSeg's XML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import DataError


def pixel_lists(path: Path) -> list[NDArray[np.int64]]:
    """Read ICPR 2012's lines of ``x,y,x,y,…``: the pixels ``(n, 2)`` of each mitosis.

    Parameters
    ----------
    path : Path
        The CSV.

    Returns
    -------
    list of ndarray of int, shape (n, 2)
        x, y.

    Raises
    ------
    DataError
        If the file cannot be read, or a line is not made of pairs.
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        values = [[int(float(v)) for v in line.split(",") if v.strip()] for line in lines]
        return [np.array(v, np.int64).reshape(-1, 2) for v in values]
    except (OSError, ValueError, OverflowError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e


def read_pixel_lists(path: Path, shape: Sequence[int]) -> NDArray[np.uint16]:
    """Read ICPR 2012's lists of pixels as an instance map of a shape ``(h, w)``.

    Parameters
    ----------
    path : Path
        The CSV.
    shape : sequence of int
        Height and width.

    Returns
    -------
    ndarray of uint16, shape (h, w)
        0 is background.

    Raises
    ------
    DataError
        See `pixel_lists`.
    """
    out = np.zeros(shape[:2], np.uint16)
    for k, xy in enumerate(pixel_lists(path), start=1):
        x, y = xy[within(xy, shape)].T
        out[y, x] = k
    return out


def within(xy: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Return which pixels ``(n, 2)`` lie in an image of a shape ``(h, w)``.

    Parameters
    ----------
    xy : ndarray of int, shape (n, 2)
        x, y.
    shape : sequence of int
        Height and width.

    Returns
    -------
    ndarray of bool, shape (n,)
        One value for each pixel.
    """
    x, y = xy.T
    return np.asarray((x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0]), np.bool_)


def polygon_instances(polygons_px: Sequence[NDArray[np.float64]], shape: Sequence[int]) -> NDArray[np.uint16]:
    """Draw polygons ``(n, 2)`` as an instance map of a shape ``(h, w)``: the first is 1.

    Parameters
    ----------
    polygons_px : sequence of ndarray of float, shape (n, 2)
        x, y of the corners.
    shape : sequence of int
        Height and width.

    Returns
    -------
    ndarray of uint16, shape (h, w)
        0 is background.
    """
    out = np.zeros(shape[:2], np.uint16)
    for k, corners in enumerate(polygons_px, start=1):
        cv2.fillPoly(out, [np.rint(corners).astype(np.int32)], k)
    return out


def monuseg_corners(path: Path) -> list[NDArray[np.float64]]:
    """Read MoNuSeg's XML (of Aperio ImageScope): the corners ``(n, 2)`` of each nucleus.

    Parameters
    ----------
    path : Path
        The XML, untrusted.

    Returns
    -------
    list of ndarray of float, shape (n, 2)
        x, y.

    Raises
    ------
    DataError
        If the file cannot be read, or declares entities.
    """
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
            raise DataError(f"{path} declares entities, which outlines do not need; it is not read.")
        regions = ElementTree.fromstring(text).iter("Region")  # noqa: S314 - entities are refused above
        found = [[(float(v.get("X", "")), float(v.get("Y", ""))) for v in r.iter("Vertex")] for r in regions]
    except (OSError, ElementTree.ParseError, ValueError) as e:
        raise DataError(f"The truth {path} cannot be read: {e}.") from e
    return [np.array(corners, np.float64).reshape(-1, 2) for corners in found]


def read_monuseg_xml(path: Path, shape: Sequence[int]) -> NDArray[np.uint16]:
    """Read MoNuSeg's outlines as an instance map of a shape ``(h, w)``.

    Parameters
    ----------
    path : Path
        The XML, untrusted.
    shape : sequence of int
        Height and width.

    Returns
    -------
    ndarray of uint16, shape (h, w)
        0 is background.

    Raises
    ------
    DataError
        See `monuseg_corners`.
    """
    out = np.zeros(shape[:2], np.uint16)
    for k, corners in enumerate(monuseg_corners(path), start=1):
        if len(corners) >= 3:
            cv2.fillPoly(out, [np.rint(corners).astype(np.int32)], k)
    return out
