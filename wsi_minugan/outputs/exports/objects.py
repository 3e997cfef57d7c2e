"""What is exported: the mitoses and nuclei of a finished slide, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.geojson import MITOSIS, UNREADABLE, WINDOWS, features_of, object_id, single
from wsi_minugan.outputs.manifest import read_manifest

NUCLEUS = "Nucleus"
PART = 10_000
"""Objects held at once."""


@dataclass(frozen=True)
class Part:
    """Some objects of one class.

    Attributes
    ----------
    label : str
        Name of their class.
    ids : list of str
        UUIDs; the same in every export of the same results.
    shapes : ndarray of shapely geometries, shape (n,)
        Valid polygons on a grid of 0.01 px, in the slide's level-0 px.
    measurements : dict of str to ndarray, each of shape (n,)
        Numbers of each object.
    """

    label: str
    ids: list[str]
    shapes: NDArray[np.object_]
    measurements: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Slide:
    """A finished slide's folder.

    Attributes
    ----------
    folder : Path
        Folder of its results, ``OUT/SLIDE_ID``.
    slide_id : str
        The slide's name.
    mpp : float
        um per level-0 pixel.
    fingerprint : str
        SHA-256 of the slide's size and of samples of its content. Ids of nuclei are made from it.
    origin_px : tuple of int
        x, y of the level-0 pixel that the slide's mitoses.geojson counts from.
    """

    folder: Path
    slide_id: str
    mpp: float
    fingerprint: str
    origin_px: tuple[int, int]

    @property
    def nuclei(self) -> Path:
        """Where its nuclei lie, if it has any.

        Returns
        -------
        Path
            The file, which does not exist where the slide was analysed without nuclei.
        """
        return self.folder / "nuclei.parquet"


def open_slide_folder(folder: Path) -> Slide:
    """Return a finished slide's folder.

    Parameters
    ----------
    folder : Path
        Folder of a slide's results, ``OUT/SLIDE_ID``.

    Returns
    -------
    Slide
        Name, resolution and origin, as the manifest says them.

    Raises
    ------
    OutputError
        If it is none.
    """
    sealed = read_manifest(folder)
    facts = sealed.slide
    return Slide(folder, facts.slide_id, facts.mpp, facts.fingerprint, sealed.geojson_origin_px)


def parts_of(slide: Slide) -> Iterator[Part]:
    """Yield the hot spot, the fields, the mitoses, then the nuclei of a slide, at most `PART` at once.

    Parameters
    ----------
    slide : Slide
        A finished slide.

    Yields
    ------
    Part
        Objects of one kind.
    """
    yield from _marked(slide)
    if slide.nuclei.is_file():
        yield from nuclei_of(slide)


def _marked(slide: Slide) -> Iterator[Part]:
    """Yield the features of mitoses.geojson by class, the hot spot first."""
    path = slide.folder / "mitoses.geojson"
    features, origin = features_of(path, slide.origin_px)
    by_class: dict[str, list[dict[str, Any]]] = {label: [] for label in (*WINDOWS, MITOSIS)}
    for feature in features:
        by_class.setdefault(_class_of(feature), []).append(feature)
    for label, members in by_class.items():
        for start in range(0, len(members), PART):
            yield _part_of(path, label, members[start : start + PART], origin)


def _class_of(feature: Any) -> str:
    try:
        return str(feature["properties"]["classification"]["name"])
    except (KeyError, TypeError):
        return MITOSIS


def _part_of(path: Path, label: str, features: list[dict[str, Any]], origin: NDArray[np.float64]) -> Part:
    try:
        shapes = np.array([shapely.from_geojson(json.dumps(f["geometry"])) for f in features], object)
        numbers = [f["properties"].get("measurements", {}) for f in features]
        names = sorted({name for row in numbers for name in row})
        measured = {n: np.array([float(row.get(n, np.nan)) for row in numbers]) for n in names}
        ids = [str(f["id"]) for f in features]
    except UNREADABLE as e:
        raise OutputError(
            f"{path} is not as a run wrote it ({type(e).__name__}: {e}). Run the slide again, or export it from QuPath."
        ) from e
    return Part(label, ids, shapely.transform(shapes, lambda xy: np.round(xy + origin, 2)), measured)


def nuclei_of(slide: Slide) -> Iterator[Part]:
    """Yield the nuclei of a slide that has some, at most `PART` at once.

    Parameters
    ----------
    slide : Slide
        A finished slide.

    Yields
    ------
    Part
        Nuclei.

    Raises
    ------
    OutputError
        If their file cannot be read.
    """
    try:
        with pq.ParquetFile(slide.nuclei) as file:
            for batch in file.iter_batches(PART, columns=["nucleus", "area_um2", "geometry"]):
                yield _nuclei_part(slide, batch)
    except (OSError, pa.ArrowException, KeyError, shapely.errors.ShapelyError) as e:
        raise OutputError(f"{slide.nuclei} cannot be read: {e}. Run the slide again.") from e


def _nuclei_part(slide: Slide, batch: pa.RecordBatch) -> Part:
    shapes = snapped(shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False)))
    numbers = batch.column("nucleus").to_pylist()
    ids = [object_id(slide.fingerprint, f"nucleus {k}") for k in numbers]
    area = {"Area um2": batch.column("area_um2").to_numpy(zero_copy_only=False)}
    there = ~shapely.is_empty(shapes)
    if not there.all():
        kept = np.flatnonzero(there)
        ids, shapes = [ids[k] for k in kept], shapes[kept]
        area = {name: values[kept] for name, values in area.items()}
    return Part(NUCLEUS, ids, shapes, area)


def snapped(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return polygons valid on QuPath's grid of 0.01 px, a single part a polygon; empty where nothing is left.

    Parameters
    ----------
    shapes : ndarray of object, shape (n,)
        Polygons or multipolygons, px; they may be invalid.

    Returns
    -------
    ndarray of object, shape (n,)
        Polygons or multipolygons, exterior rings counter-clockwise.
    """
    out = shapes.copy()
    # A run writes polygons on this grid; what is right already, nearly all of them, need not be noded again.
    odd = ~_is_right(shapes)
    mended = np.array([single(m) for m in shapely.make_valid(shapes[odd])], object)
    # Without their grid: GEOS would round what is computed of them, such as centroids, to it.
    out[odd] = shapely.set_precision(mended, 0.0)
    return np.asarray(shapely.orient_polygons(out), object)


def _is_right(shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return which are valid polygons with all corners on the grid, shape ``(n,)``."""
    right = np.asarray(shapely.is_valid(shapes) & (shapely.get_type_id(shapes) == _POLYGON))
    xy, shape = shapely.get_coordinates(shapes, return_index=True)
    right[shape[(np.round(xy, 2) != xy).any(axis=1)]] = False
    return np.asarray(right & (shapely.area(shapes) > 0))


_POLYGON = int(shapely.get_type_id(shapely.Polygon()))
