"""nuclei.parquet: GeoParquet 1.1, written in row groups as the nuclei come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
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
    """Write nuclei as GeoParquet 1.1, and return their number.

    Parameters
    ----------
    path : Path
        ``nuclei.parquet`` to write.
    batches : iterable of dict
        Columns by name: nucleus (uint32, its number in ``labels/nuclei`` of the masks), centroid_x_px and centroid_y_px (float64,
        level-0 px), area_um2 (float64) and geometry (WKB of a polygon, level-0 px). However the batches are cut, the file is the
        same.
    slide_id : str
        The slide's name, for the file's metadata.
    mpp : float
        um per level-0 pixel, for the file's metadata.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    OutputError
        If the folder does not take the file.
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
            columns = [_column(batch[name], kind) for name, kind in _FIELDS]
            waiting.append(pa.record_batch(columns, schema=schema))
            count += waiting[-1].num_rows
            table = pa.Table.from_batches(waiting, schema)
            while table.num_rows >= ROWS_PER_GROUP:
                writer.write_table(table.slice(0, ROWS_PER_GROUP).combine_chunks())
                table = table.slice(ROWS_PER_GROUP)
            waiting = table.combine_chunks().to_batches()
        writer.write_table(pa.Table.from_batches(waiting, schema))
    return count


def _column(values: Any, kind: pa.DataType) -> pa.Array:
    """Return an array of Arrow's; its own conversion loads pandas, for which a worker would spend a second."""
    if kind == pa.binary():
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    else:
        numbers = np.ascontiguousarray(values, kind.to_pandas_dtype())
        buffers = [None, pa.py_buffer(numbers)]
    return pa.Array.from_buffers(kind, len(values), buffers)
