"""Counts from points or tables, without a slide."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.count import circle_radius_px
from wsi_minugan.counting.count import count_mitoses as _count_mitoses
from wsi_minugan.counting.fields.placing import Fields, Mode, find_fields
from wsi_minugan.counting.hotspot import Hotspot, find_hotspot
from wsi_minugan.counting.models import Count
from wsi_minugan.errors import InputError

HPF_DIAMETER_MM = 0.5


def count_mitoses(
    mitoses: Any,
    mpp: float,
    *,
    hotspot_mm2: float | None = None,
    hpf_diameter_mm: float = HPF_DIAMETER_MM,
    area_mm2: float | None = None,
) -> Count:
    """Count mitoses over all and in the hot spot, with densities and scores.

    Parameters
    ----------
    mitoses : GeoDataFrame, GeoSeries, or array of float, shape (n, 2)
        Shapes, which count by their centroids, or x and y. Slide pixels.
    mpp : float
        um per slide pixel.
    hotspot_mm2 : float, optional
        Area of the hot spot's circle; default ten high-power fields.
    hpf_diameter_mm : float
        Diameter of a high-power field.
    area_mm2 : float, optional
        Tissue that was looked at; needed for a density over all.

    Returns
    -------
    Count
        The content of count.json.

    Raises
    ------
    InputError
        If the points are no (n, 2) array of finite numbers, or a size is not above zero.

    Examples
    --------
    >>> count = count_mitoses([[1000, 1000], [1200, 1000], [90000, 0]], mpp=0.25)
    >>> count.mitoses, count.hotspot.mitoses
    (3, 2)
    """
    _above_zero(mpp=mpp, hotspot_mm2=hotspot_mm2, hpf_diameter_mm=hpf_diameter_mm)
    area = ten_fields_mm2(hpf_diameter_mm) if hotspot_mm2 is None else hotspot_mm2
    return _count_mitoses(points_of(mitoses), mpp, area, hpf_diameter_mm, area_mm2)


def hotspot(
    mitoses: Any, mpp: float, *, area_mm2: float | None = None, hpf_diameter_mm: float = HPF_DIAMETER_MM
) -> Hotspot | None:
    """Return the circle that holds the most mitoses; no other position of it holds more.

    Parameters
    ----------
    mitoses : GeoDataFrame, GeoSeries, or array of float, shape (n, 2)
        Shapes, which count by their centroids, or x and y. Slide pixels.
    mpp : float
        um per slide pixel.
    area_mm2 : float, optional
        Area of the circle; default ten high-power fields.
    hpf_diameter_mm : float
        Diameter of a high-power field.

    Returns
    -------
    Hotspot or None
        Centre and radius (slide px) and the number of mitoses; None where there are no mitoses.

    Raises
    ------
    InputError
        If the points are no (n, 2) array of finite numbers, or a size is not above zero.

    Examples
    --------
    >>> hotspot([[1000, 1000], [1200, 1000], [90000, 0]], mpp=0.25).mitoses
    2
    """
    _above_zero(mpp=mpp, area_mm2=area_mm2, hpf_diameter_mm=hpf_diameter_mm)
    area = ten_fields_mm2(hpf_diameter_mm) if area_mm2 is None else area_mm2
    return find_hotspot(points_of(mitoses), circle_radius_px(area, mpp))


def fields(
    mitoses: Any, mpp: float, *, hpf_diameter_mm: float = HPF_DIAMETER_MM, mode: Mode = "free"
) -> Fields:
    """Return the ten high-power fields that hold the most mitoses; they do not overlap.

    Parameters
    ----------
    mitoses : GeoDataFrame, GeoSeries, or array of float, shape (n, 2)
        Shapes, which count by their centroids, or x and y. Slide pixels.
    mpp : float
        um per slide pixel.
    hpf_diameter_mm : float
        Diameter of a field.
    mode : {"free", "adjacent"}
        Fields lie anywhere, or touch each other as a microscope moves.

    Returns
    -------
    Fields
        Each field's centre (slide px) and count, and whether the total is proved to be the highest.

    Raises
    ------
    InputError
        If the points are no (n, 2) array of finite numbers, a size is not above zero, or there is no such mode.

    Examples
    --------
    >>> fields([[1000, 1000], [1200, 1000], [90000, 0]], mpp=0.25).total
    3
    """
    _above_zero(mpp=mpp, hpf_diameter_mm=hpf_diameter_mm)
    if mode not in get_args(Mode):
        raise InputError(f"The mode of fields is 'free' or 'adjacent', not '{mode}'.")
    return find_fields(points_of(mitoses), 1000 * hpf_diameter_mm / mpp, mode)


def _above_zero(**sizes: float | None) -> None:
    for name, value in sizes.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be a number above zero, not {value}.")


def ten_fields_mm2(hpf_diameter_mm: float) -> float:
    """Return the area of ten high-power fields of a diameter, mm2.

    Parameters
    ----------
    hpf_diameter_mm : float
        Diameter of one high-power field.

    Returns
    -------
    float
        Area of ten such fields, mm2.
    """
    return 10 * math.pi * (hpf_diameter_mm / 2) ** 2


def points_of(mitoses: Any) -> NDArray[np.float64]:
    """Return x and y of mitoses, shape ``(n, 2)``, from a table of shapes or an array.

    Parameters
    ----------
    mitoses : GeoDataFrame or array_like, shape (n, 2)
        A table of shapes, whose centroids count, or x and y in slide pixels.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y, in the frame of what was given.

    Raises
    ------
    InputError
        If an array has another shape, or holds what is no number.
    """
    shapes = getattr(mitoses, "geometry", None)
    if shapes is not None:
        centroids = shapes.centroid
        return np.stack([centroids.x, centroids.y], axis=1).astype(np.float64).reshape(-1, 2)
    points = np.asarray(mitoses, np.float64)
    if points.size == 0:
        return np.zeros((0, 2))
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InputError(
            f"Mitoses must be finite x and y of shape (n, 2), not {points.shape}. Give slide pixels."
        )
    return points
