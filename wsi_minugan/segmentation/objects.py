"""Connected objects of one block, their measures, and which are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box
from wsi_minugan.segmentation.run_lengths import RunLengthMask, run_length_mask, spread

COLUMNS = (
    "area_px",
    "sum_y",
    "sum_x",
    "top",
    "left",
    "bottom",
    "right",
    "first_y",
    "first_x",
    "peak",
    "sum_score",
)
"""What a table of objects tells of each; see `BlockObjects`."""


class ObjectCut(NamedTuple):
    """Which objects of a class are kept: the one place that decides it, for slides and for figures alike.

    Attributes
    ----------
    min_area_px : float
        Least area, in pixels.
    min_peak : int
        Least peak of the score, 0 to 255.
    """

    min_area_px: float
    min_peak: int

    def keeps(self, area_px: NDArray[np.int64], peak: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which objects are kept, by their areas and peaks; shapes ``(n,)``.

        Parameters
        ----------
        area_px : ndarray of int, shape (n,)
            Pixels of each object.
        peak : ndarray of int, shape (n,)
            Highest score of each, 0 to 255.

        Returns
        -------
        ndarray of bool, shape (n,)
            One value for each object.
        """
        kept: NDArray[np.bool_] = (area_px >= self.min_area_px) & (peak >= self.min_peak)
        return kept


def object_cut(min_area_um2: float, min_peak: float, mpp: float) -> ObjectCut:
    """Convert a model card's thresholds of objects from um2 and scores of 0 to 1 to pixels and bytes.

    Parameters
    ----------
    min_area_um2 : float
        Least area of an object.
    min_peak : float
        Least peak score of an object, 0 to 1; 0 for classes whose peak does not matter.
    mpp : float
        um per pixel of the mask.

    Returns
    -------
    ObjectCut
        Least area in px of the mask, least peak of 0 to 255.
    """
    return ObjectCut(min_area_um2 / mpp**2, round(255 * min_peak))


@dataclass(frozen=True)
class BlockObjects:
    """Objects of one class in one block; object k has the label k + 1.

    Attributes
    ----------
    box : Box
        The block, analysis px.
    table : dict of str to ndarray of int64, shape (n,)
        area_px; sum_y, sum_x (of pixel indices in the slide); top, left, bottom, right (half-open box);
        first_y, first_x (first pixel in raster order); peak and sum_score (of the score, 0 to 255).
    borders : dict of str to ndarray of int32, shapes (w,) and (h,)
        Labels along the block's "top" and "bottom", "left" and "right" pixels; 0 is background.
    """

    box: Box
    table: dict[str, NDArray[np.int64]]
    borders: dict[str, NDArray[np.int32]]

    @property
    def count(self) -> int:
        """Number of objects.

        Returns
        -------
        int
            0 or more.
        """
        return len(self.table["area_px"])

    @property
    def crossing(self) -> NDArray[np.bool_]:
        """Whether an object touches the block's border; shape ``(n,)``.

        Returns
        -------
        ndarray of bool, shape (n,)
            In the order of the table.
        """
        touched = np.unique(np.concatenate([b.ravel() for b in self.borders.values()]))
        out = np.zeros(self.count + 1, bool)
        out[touched] = True
        return out[1:]


def centroids_of(table: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the centroids of a table's objects.

    Parameters
    ----------
    table : dict of str to ndarray of int64, each of shape (n,)
        Columns area_px, sum_x and sum_y; the sums are those of pixel indices.

    Returns
    -------
    ndarray of float, shape (n, 2)
        x, y in the px of the sums; the centre of pixel 0 is at 0.5.

    Examples
    --------
    >>> centroids_of({"area_px": np.array([2]), "sum_x": np.array([1]), "sum_y": np.array([0])}).tolist()
    [[1.0, 0.5]]
    """
    area = np.maximum(1, table["area_px"]).astype(np.float64)
    return np.stack([table["sum_x"] / area + 0.5, table["sum_y"] / area + 0.5], axis=1)


def label_objects(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the 8-connected components of a mask, numbered from 1; the same for the same mask everywhere.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
        What belongs to an object.

    Returns
    -------
    ndarray of int32, shape (h, w)
        0 is background.
    """
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels, np.int32)


def measure_objects(found: RunLengthMask, score: NDArray[np.uint8] | None, box: Box) -> BlockObjects:
    """Measure the objects of one block.

    Parameters
    ----------
    found : RunLengthMask
        The block's objects.
    score : ndarray of uint8, shape (h, w), or None
        Score from which an object's peak and mean are taken; None for objects that have none, whose peak and sum are 0.
    box : Box
        The block, analysis px.

    Returns
    -------
    BlockObjects
        Areas, sums of places and scores, peaks, and what touches the block's border.
    """
    n, lengths = found.count, found.lengths

    def summed(v: NDArray[Any]) -> NDArray[np.int64]:
        # Sums of whole numbers below 2**53 are exact in float64.
        return np.bincount(found.labels, v, minlength=n + 1)[1:].astype(np.int64)

    area = summed(lengths)
    peak, sum_score = np.zeros((2, n), np.int64)
    if n and score is not None:
        values = np.ascontiguousarray(score).reshape(-1)[found.pixels]
        begins = np.cumsum(lengths) - lengths
        np.maximum.at(peak, found.labels - 1, np.maximum.reduceat(values, begins).astype(np.int64))
        sum_score = summed(np.add.reduceat(values, begins, dtype=np.int64))
    top, left, bottom, right = found.boxes
    first_y, first_x = found.firsts
    table = {
        "area_px": area,
        "sum_y": summed(found.rows * lengths) + area * box.y_px,
        "sum_x": summed((found.starts + found.ends - 1) * lengths // 2) + area * box.x_px,
        "top": top + box.y_px,
        "left": left + box.x_px,
        "bottom": bottom + box.y_px,
        "right": right + box.x_px,
        "first_y": first_y + box.y_px,
        "first_x": first_x + box.x_px,
        "peak": peak,
        "sum_score": sum_score,
    }
    return BlockObjects(box, table, _borders(found))


def without_dropped(
    classes: NDArray[np.uint8], score: NDArray[np.uint8], cuts: Mapping[int, ObjectCut]
) -> NDArray[np.uint8]:
    """Return the class map of a whole image without the objects that a slide's would not hold.

    Parameters
    ----------
    classes : ndarray of uint8, shape (h, w)
        Class of every pixel; 0 is background.
    score : ndarray of uint8, shape (h, w)
        Score from which objects' peaks are taken.
    cuts : mapping of int to ObjectCut
        By class; other classes stay as they are.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        Dropped objects are background.
    """
    out = classes.copy()
    for value, cut in cuts.items():
        runs = run_length_mask(classes == value)
        table = measure_objects(runs, score, Box(0, 0, *classes.shape)).table
        dropped = ~cut.keeps(table["area_px"], table["peak"])
        runs.of(dropped[runs.labels - 1]).paint(out, 0)
    return out


def _borders(found: RunLengthMask) -> dict[str, NDArray[np.int32]]:
    height, width = found.shape
    borders = {}
    for side, row in (("top", 0), ("bottom", height - 1)):
        on_it = found.of(found.rows == row)
        borders[side] = np.zeros(width, np.int32)
        borders[side][spread(on_it.starts, on_it.lengths)] = np.repeat(on_it.labels, on_it.lengths)
    for side, on_side in (("left", found.starts == 0), ("right", found.ends == width)):
        borders[side] = np.zeros(height, np.int32)
        borders[side][found.rows[on_side]] = found.labels[on_side]
    return borders
