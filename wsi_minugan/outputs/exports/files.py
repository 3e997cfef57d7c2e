"""The formats: GeoJSON for QuPath, CSV, GeoParquet, TIAToolbox's annotation store, OME-Zarr in one zip."""

from __future__ import annotations

import csv
import gzip
import json
import math
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from wsi_minugan.errors import OutputError
from wsi_minugan.outputs.atomic import atomic_path
from wsi_minugan.outputs.exports.objects import NUCLEUS, Part, Slide, nuclei_of, parts_of
from wsi_minugan.outputs.geojson import COLOURS, WINDOWS

_BYTE_ORDER_MARK = "\ufeff"
_NUCLEUS_COLOUR = (70, 110, 200)
_GZIP_LEVEL, _ZLIB_LEVEL = 5, 3


def write_geojson(slide: Slide, path: Path) -> int:
    """Write all objects as one GeoJSON FeatureCollection (RFC 7946) that QuPath imports, and return their number.

    Coordinates are level-0 px, and count from where the slide's mitoses.geojson counts.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        File to write; a name that ends in .gz is compressed.

    Returns
    -------
    int
        Objects written.
    """
    return _write_features(slide, parts_of(slide), path)


def write_nuclei_geojson(slide: Slide, path: Path) -> int:
    """Write the nuclei alone, each as `write_geojson` writes it, and return their number.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        File to write; a name that ends in .gz is compressed.

    Returns
    -------
    int
        Nuclei written.
    """
    return _write_features(slide, nuclei_of(slide), path)


def _write_features(slide: Slide, parts: Iterator[Part], path: Path) -> int:
    count = 0
    with _text(path) as f:
        f.write(f'{{"type":"FeatureCollection","origin_px":{json.dumps(slide.origin_px)},"features":[')
        for part in parts:
            for feature in _features(slide, part):
                f.write((",\n" if count else "\n") + feature)
                count += 1
        f.write("\n]}\n")
    return count


@contextmanager
def _text(path: Path) -> Iterator[IO[str] | _Encoded]:
    with atomic_path(path) as temporary:
        if path.suffix == ".gz":
            # Without name and time, so that the same results are the same bytes.
            with temporary.open("wb") as raw, gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                yield _Encoded(packed)
        else:
            with temporary.open("w", encoding="utf-8") as f:
                yield f


class _Encoded:
    """Text into a file of bytes, in pieces that are worth packing."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _features(slide: Slide, part: Part) -> Iterator[str]:
    origin = np.array(slide.origin_px, float)
    shapes = part.shapes
    if origin.any():
        shapes = shapely.transform(shapes, lambda xy: np.round(xy - origin, 2))
    head = _properties(part.label)
    names = [json.dumps(n) for n in part.measurements]
    columns = [np.round(v, 4).tolist() for v in part.measurements.values()]
    for k, (key, geometry) in enumerate(zip(part.ids, shapely.to_geojson(shapes).tolist(), strict=True)):
        numbers = ",".join(f"{n}:{c[k]}" for n, c in zip(names, columns, strict=True) if not math.isnan(c[k]))
        measured = f',"measurements":{{{numbers}}}' if numbers else ""
        yield f'{{"type":"Feature","id":"{key}","geometry":{geometry},"properties":{{{head}{measured}}}}}'


def _properties(label: str) -> str:
    colour = (COLOURS | {NUCLEUS: _NUCLEUS_COLOUR}).get(label, (128, 128, 128))
    properties: dict[str, Any] = {
        "objectType": "annotation" if label in WINDOWS else "detection",
        "type": label,
        "classification": {"name": label, "color": list(colour)},
    }
    if label in WINDOWS:
        properties["isLocked"] = True
    return json.dumps(properties, separators=(",", ":"))[1:-1]


def write_csv(slide: Slide, path: Path) -> int:
    """Write a line for each mitosis and nucleus: class, id, centroid in px and um, area, scores; returns their number.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        File to write.

    Returns
    -------
    int
        Objects written.
    """
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as f:
        f.write(_BYTE_ORDER_MARK)
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(
            [
                "slide_id",
                "class",
                "id",
                "x_px",
                "y_px",
                "x_um",
                "y_um",
                "area_um2",
                "peak_score",
                "mean_score",
            ]
        )
        for part in parts_of(slide):
            if part.label in WINDOWS:
                continue
            xy = shapely.get_coordinates(shapely.centroid(part.shapes))
            area = shapely.area(part.shapes) * slide.mpp**2
            scores = [_column(part, name) for name in ("Peak score", "Mean score")]
            columns = (
                *np.round(xy, 2).T.tolist(),
                *np.round(xy * slide.mpp, 3).T.tolist(),
                np.round(area, 3).tolist(),
                *scores,
            )
            for row in zip(part.ids, *columns, strict=True):
                writer.writerow([slide.slide_id, part.label, *row])
            count += len(part.ids)
    return count


def _column(part: Part, name: str) -> list[float | str]:
    values = part.measurements.get(name)
    return (
        [""] * len(part.ids)
        if values is None
        else ["" if math.isnan(v) else v for v in np.round(values, 4).tolist()]
    )


def write_parquet(slide: Slide, path: Path) -> int:
    """Write mitoses and nuclei as one GeoParquet file; returns their number.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        File to write.

    Returns
    -------
    int
        Objects written.
    """
    geometry = {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"], "crs": None}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    words, numbers = (
        ("id", "class"),
        ("centroid_x_px", "centroid_y_px", "area_um2", "peak_score", "mean_score"),
    )
    schema = pa.schema(
        [
            *((n, pa.string()) for n in words),
            *((n, pa.float64()) for n in numbers),
            ("geometry", pa.binary()),
        ],
        metadata={"geo": json.dumps(geo), "slide_id": slide.slide_id, "mpp": repr(slide.mpp)},
    )
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in parts_of(slide):
            if part.label in WINDOWS:
                continue
            n = len(part.ids)
            xy = shapely.get_coordinates(shapely.centroid(part.shapes)).reshape(-1, 2)
            scores = [
                part.measurements.get(name, np.full(n, np.nan)) for name in ("Peak score", "Mean score")
            ]
            columns = [part.ids, [part.label] * n, *xy.T, shapely.area(part.shapes) * slide.mpp**2]
            columns += [pa.array(s, from_pandas=True) for s in scores]
            writer.write_batch(pa.record_batch([*columns, shapely.to_wkb(part.shapes)], schema=schema))
            count += n
    return count


_STORE = """
CREATE TABLE metadata (key TEXT UNIQUE, value TEXT);
CREATE VIRTUAL TABLE rtree USING rtree_i32(id, min_x, max_x, min_y, max_y);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, key TEXT UNIQUE, objtype TEXT, cx INTEGER NOT NULL, cy INTEGER NOT NULL,
  geometry BLOB, properties TEXT, area INTEGER NOT NULL);
"""
"""Tables of TIAToolbox's SQLiteStore, version 1.0.1."""


def write_annotation_store(slide: Slide, path: Path) -> int:
    """Write all objects as a store that TIAToolbox opens (`SQLiteStore.open`), coloured by their property "type"; returns their number.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        SQLite file to write.

    Returns
    -------
    int
        Objects written.
    """
    count = 0
    with atomic_path(path) as temporary, closing(sqlite3.connect(temporary, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _STORE)
        told = {
            "version": "1.0.1",
            "compression": "zlib",
            "compression_level": 9,
            "slide_id": slide.slide_id,
            "mpp": slide.mpp,
        }
        db.execute("BEGIN")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", [(k, json.dumps(v)) for k, v in told.items()])
        for part in parts_of(slide):
            bounds = shapely.bounds(part.shapes).astype(float).tolist()
            middles = shapely.get_coordinates(shapely.centroid(part.shapes)).astype(int).tolist()
            areas = shapely.area(part.shapes).astype(int).tolist()
            shapes = [zlib.compress(w, _ZLIB_LEVEL) for w in shapely.to_wkb(part.shapes)]
            kinds = [s.geom_type for s in part.shapes]
            told_of = _store_properties(part)
            ids = range(count + 1, count + 1 + len(part.ids))
            rows = (
                zip(ids, part.ids, kinds, *zip(*middles, strict=True), shapes, told_of, areas, strict=True)
                if middles
                else ()
            )
            db.executemany("INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            boxes = [
                (k, left, right, top, bottom)
                for k, (left, top, right, bottom) in zip(ids, bounds, strict=True)
            ]
            db.executemany("INSERT INTO rtree VALUES (?, ?, ?, ?, ?)", boxes)
            count += len(part.ids)
        db.execute("COMMIT")
    return count


def _store_properties(part: Part) -> list[str]:
    names = [n.lower().replace(" ", "_") for n in part.measurements]
    columns = [np.round(v, 4).tolist() for v in part.measurements.values()]
    rows = zip(*columns, strict=True) if columns else iter([()] * len(part.ids))
    return [
        json.dumps(
            {"type": part.label} | {n: v for n, v in zip(names, row, strict=True) if not math.isnan(v)},
            separators=(",", ":"),
        )
        for row in rows
    ]


def write_ome_zarr_zip(slide: Slide, path: Path) -> int:
    """Write the masks as one zip, and return the number of its files.

    As OME-Zarr's RFC 9 has it: nothing is packed again, the root's zarr.json comes first, and the comment names the version.

    Parameters
    ----------
    slide : Slide
        A finished slide.
    path : Path
        File to write.

    Returns
    -------
    int
        Files in it.

    Raises
    ------
    OutputError
        If the slide's store holds no masks, or the folder does not take the file.
    """
    store = slide.folder / "masks.zarr"
    files = sorted(
        (p for p in store.rglob("*") if p.is_file()), key=lambda p: _by_depth(p.relative_to(store))
    )
    if not files or files[0].relative_to(store) != Path("zarr.json"):
        raise OutputError(f"{store} holds no masks. Run the slide again.")
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        archive.comment = json.dumps({"ome": {"version": "0.5"}}).encode()
        for file in files:
            # A fixed time, so that the same results are the same bytes; copied in pieces, for a shard can be large.
            entry = zipfile.ZipInfo(file.relative_to(store).as_posix())
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while data := source.read(2**20):
                    target.write(data)
    return len(files)


def _by_depth(name: Path) -> tuple[bool, int, str]:
    """Sort descriptions before pixels, and outer ones before inner ones."""
    return name.name != "zarr.json", len(name.parts), name.as_posix()


Writer = Callable[[Slide, Path], int]

FORMATS: dict[str, tuple[str, Writer, str]] = {
    "qupath": (".geojson", write_geojson, "objects"),
    "csv": (".csv", write_csv, "objects"),
    "parquet": (".parquet", write_parquet, "objects"),
    "geojson.gz": (".geojson.gz", write_geojson, "objects"),
    "annotationstore": (".db", write_annotation_store, "objects"),
    "ome-zarr-zip": (".ome.zarr.zip", write_ome_zarr_zip, "files"),
}
"""Ending, writer, and what it counts."""
