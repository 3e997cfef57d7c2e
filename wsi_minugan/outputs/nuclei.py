"""nuclei.parquet: GeoParquet 1.1, written in row groups as the nuclei come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsi_minugan.outputs.atomic import atomic_path

ROWS_PER_GROUP = 65_536
_FIELDS = [
    ("nucleus", pa.uint32()),
    ("centroid_x_px", pa.float64()),
    ("centroid_y_px", pa.float64()),
    ("area_um2", pa.float64()),
    ("geometry", pa.binary()),
]


def write_nuclei(path: Path, batches: Iterable[dict[str, Any]], slide_id: str, mpp: float) -> int:
    """Write nuclei and return their number.

    Parameters
    ----------
    path : Path
        File to write.
    batches : iterable of dict
        Columns nucleus (number in labels/nuclei), centroid_x_px, centroid_y_px (level-0), area_um2, geometry (WKB, level-0 px).
        However the batches are cut, the file is the same. All geometries must be polygons.
    slide_id : str
        The slide's name, for the file's metadata.
    mpp : float
        um per level-0 pixel, for the file's metadata.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": None}},
    }
    schema = pa.schema(_FIELDS, metadata={"geo": json.dumps(geo), "slide_id": slide_id, "mpp": repr(mpp)})
    count = 0
    waiting: list[pa.RecordBatch] = []
    with (
        atomic_path(path, parents=False) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            waiting.append(pa.record_batch(batch, schema=schema))
            count += waiting[-1].num_rows
            table = pa.Table.from_batches(waiting, schema)
            while table.num_rows >= ROWS_PER_GROUP:
                writer.write_table(table.slice(0, ROWS_PER_GROUP).combine_chunks())
                table = table.slice(ROWS_PER_GROUP)
            waiting = table.combine_chunks().to_batches()
        writer.write_table(pa.Table.from_batches(waiting, schema))
    return count
