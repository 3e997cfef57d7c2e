"""Nuclei for the browser, binary: all centres at once, outlines tile by tile."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsi_minugan.errors import InputError, OutputError

TILE_PX = 2048
_KEPT_GROUPS = 3


class Nuclei:
    """The nuclei of a slide; only their centres are held in memory.

    Parameters
    ----------
    path : Path
        nuclei.parquet.
    width_px, height_px : int
        Size of the slide.

    Raises
    ------
    OutputError
        If it cannot be read.
    """

    def __init__(self, path: Path, width_px: int, height_px: int) -> None:
        self._path = path
        self._size = (-(-width_px // TILE_PX), -(-height_px // TILE_PX))
        try:
            self._file = pq.ParquetFile(path)
            columns = self._file.read(["centroid_x_px", "centroid_y_px"])
            self._centres = np.stack([c.to_numpy().astype(np.float32) for c in columns.columns], axis=1)
        except (OSError, pa.ArrowException, KeyError, ValueError) as e:
            raise OutputError(
                f"{path} cannot be read: {e}. Run the same command again: only that slide is done again."
            ) from e
        groups = [self._file.metadata.row_group(k).num_rows for k in range(self._file.num_row_groups)]
        self._group_starts = np.cumsum([0, *groups])
        tiles = self._tile_numbers()
        self._order = np.argsort(tiles, kind="stable")
        self._tiles = tiles[self._order]
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._centres)

    def points(self) -> bytes:
        """Return the centres, level-0 px, as little-endian float32: x and y in turn.

        Returns
        -------
        bytes
            Eight for each nucleus.
        """
        return self._centres.astype("<f4").tobytes()

    def outlines(self, column: int, row: int) -> bytes:
        """Return the outlines of the nuclei whose centres lie in a tile.

        Parameters
        ----------
        column, row : int
            Tile of `TILE_PX` level-0 px.

        Returns
        -------
        bytes
            Line segments as little-endian float32, x, y of both ends, in px from the tile's corner.

        Raises
        ------
        InputError
            If there is no such tile.
        OutputError
            If the file cannot be read.
        """
        if not (0 <= column < self._size[0] and 0 <= row < self._size[1]):
            raise InputError(f"The slide has no tile {column}, {row} of nuclei.")
        number = row * self._size[0] + column
        a, b = np.searchsorted(self._tiles, [number, number + 1])
        shapes = self._shapes(np.sort(self._order[a:b]))
        corner = np.array([column, row], np.float64) * TILE_PX
        return (segments(shapes) - corner).astype("<f4").tobytes()

    def _tile_numbers(self) -> NDArray[np.int64]:
        x, y = (self._centres // TILE_PX).astype(np.int64).T
        columns, rows = self._size
        numbers: NDArray[np.int64] = np.clip(y, 0, rows - 1) * columns + np.clip(x, 0, columns - 1)
        return numbers

    def _shapes(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        groups = np.searchsorted(self._group_starts, rows, "right") - 1
        found = []
        try:
            for group in np.unique(groups):
                wkb = self._group(int(group)).take(
                    pa.array(rows[groups == group] - self._group_starts[group])
                )
                found.append(shapely.from_wkb(wkb.to_numpy()))
        except (OSError, pa.ArrowException, shapely.errors.ShapelyError, ValueError, TypeError) as e:
            raise OutputError(f"{self._path} cannot be read: {e}. Do that slide again.") from e
        return np.concatenate(found) if found else np.zeros(0, object)

    def _group(self, number: int) -> pa.ChunkedArray:
        """Return the geometries of a row group; the last few are kept, since neighbouring tiles share them."""
        with self._lock:
            if number not in self._kept:
                self._kept[number] = self._file.read_row_group(number, ["geometry"]).column(0)
                while len(self._kept) > _KEPT_GROUPS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]


def segments(shapes: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return the line segments of polygons' outer rings, shape ``(n, 2, 2)``: both ends, x and y.

    Parameters
    ----------
    shapes : ndarray of shapely geometries
        Polygons or multipolygons.

    Returns
    -------
    ndarray of float, shape (n, 2, 2)
        In their px.
    """
    parts = shapely.get_parts(shapes)
    corners, owner = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    follows = owner[1:] == owner[:-1]
    both: NDArray[np.float64] = np.stack([corners[:-1], corners[1:]], axis=1)[follows]
    return both
