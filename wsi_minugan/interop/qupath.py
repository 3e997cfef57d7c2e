"""Nuclei as a GeoJSON for QuPath, which does not read Parquet."""

from __future__ import annotations

import gzip
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import shapely

from wsi_minugan.api.result import Result
from wsi_minugan.outputs.atomic import atomic_path
from wsi_minugan.outputs.geojson import single

_NUCLEUS = {"name": "Nucleus", "color": [200, 40, 40]}
_NAMESPACE = uuid.UUID("0d3b7a53-52a5-5c0c-9a53-5f0f5c8d4f21")


def write_nuclei_for_qupath(result: Result, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a slide's nuclei as QuPath detections.

    Parameters
    ----------
    result : Result
        The results of one slide.
    path : str or path, optional
        ``.geojson.gz`` to write. By default ``OUT/qupath/SLIDE.nuclei.geojson.gz``, where the QuPath script looks for it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If there are no nuclei, or the file cannot be written.

    Examples
    --------
    >>> write_nuclei_for_qupath(Result.open("OUT/a"))  # doctest: +SKIP
    """
    folder = result.folder
    default = folder.parent / "qupath" / f"{folder.name}.nuclei.geojson.gz"
    target = default if path is None else Path(path)
    features = _features(result)
    with atomic_path(target, parents=True) as temporary, gzip.open(temporary, "wt", encoding="utf-8") as f:
        f.write('{"type":"FeatureCollection","features":[')
        for k, feature in enumerate(features):
            f.write((",\n" if k else "\n") + feature)
        f.write("\n]}\n")
    return target


def _features(result: Result) -> Iterator[str]:
    """Yield each nucleus as a feature; its id does not change when it is written again."""
    mark, origin = result.manifest.slide.fingerprint, result.manifest.geojson_origin_px
    nuclei = result.nuclei
    shapes = nuclei.geometry.translate(-origin[0], -origin[1])
    for number, shape, area_um2 in zip(nuclei.index, shapes, nuclei.area_um2, strict=True):
        geometry = json.loads(shapely.to_geojson(shapely.orient_polygons(single(shape))))
        feature = {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, f"{mark} nucleus {number}")),
            "geometry": {k: geometry[k] for k in ("type", "coordinates")},
            "properties": {
                "objectType": "detection",
                "classification": _NUCLEUS,
                "measurements": {"Area um2": round(float(area_um2), 4)},
            },
        }
        yield json.dumps(feature, separators=(",", ":"), allow_nan=False)
