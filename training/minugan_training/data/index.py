"""One internal form for every data set: an index with a row for each image, saying what is known of it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from wsi_minugan.errors import DataError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.outputs.atomic import atomic_path

Knowledge = Literal["known", "absent", "unknown"]
"""known: labelled completely; absent: there is none; unknown: nobody looked."""

TruthKind = Literal["", "points", "instances", "foreground", "polygons", "pixel-lists", "monuseg-xml", "rgb"]

WRITTEN_OUT = ("", "points", "polygons")
"""Kinds of truth that stand in the index itself, not in a file."""


class Entry(FrozenModel):
    """One image, or a region of one, and what is known of it."""

    dataset: str
    image: str = Field(description="Path below the index's root.")
    x_px: int = Field(0, ge=0, description="Region's left edge.")
    y_px: int = Field(0, ge=0)
    width_px: int = Field(gt=0)
    height_px: int = Field(gt=0)
    mpp: float = Field(gt=0.05, lt=2)
    patient: str
    scanner: str = ""
    split: Literal["train", "val", "test", ""] = ""
    mitoses: Knowledge
    mitoses_kind: TruthKind = ""
    mitoses_truth: str = Field(
        "",
        description="Path of the truth, or in the region's pixels points, 'x y;x y', or polygons, 'x y x y x y;x y x y x y'.",
    )
    mitoses_votes: str = Field(
        "",
        description="Share of the readers that called each point a mitosis, '1;0.67'; empty: not known.",
    )
    look_alikes: str = Field(
        "", description="Centres of nuclei that readers proposed and the majority refused, 'x y;x y'."
    )
    unknown_points: str = Field("", description="Places, 'x y;x y', around which nothing is known (10 um).")
    nuclei: Knowledge
    nuclei_kind: TruthKind = ""
    nuclei_truth: str = ""
    ignore: str = Field("", description="Path of a mask: where it is not 0, nothing is known.")

    @field_validator("look_alikes", "unknown_points", mode="after")
    @classmethod
    def _points(cls, text: str) -> str:
        points_of(text)
        return text

    @field_validator("mitoses_truth", mode="after")
    @classmethod
    def _pairs_of_numbers(cls, text: str, info: ValidationInfo) -> str:
        if info.data.get("mitoses_kind") == "points":
            points_of(text)
        if info.data.get("mitoses_kind") == "polygons":
            polygons_of(text)
        return text

    @property
    def outlined(self) -> bool:
        """Whether experts outlined the mitoses; an outline made from a centre is no truth to be measured against.

        Returns
        -------
        bool
            False also where nothing is known.
        """
        return self.mitoses == "known" and self.mitoses_kind != "points"

    @property
    def points_px(self) -> list[tuple[float, float]]:
        """Centres of the mitoses, where these are given as points.

        Returns
        -------
        list of tuple of float
            x, y in the image's own px.
        """
        return points_of(self.mitoses_truth) if self.mitoses_kind == "points" else []


def points_of(text: str) -> list[tuple[float, float]]:
    """Return the points of an index's cell.

    Parameters
    ----------
    text : str
        Pairs of numbers, separated by semicolons.

    Returns
    -------
    list of tuple of float
        x, y.

    Raises
    ------
    ValueError
        If one is not two numbers.

    Examples
    --------
    >>> points_of("10 20;30.5 40")
    [(10.0, 20.0), (30.5, 40.0)]
    """
    try:
        points = [(float(x), float(y)) for x, y in (p.split() for p in text.split(";") if text)]
    except ValueError:
        points = [(math.nan, math.nan)]
    if not all(math.isfinite(v) for p in points for v in p):
        raise ValueError(f"'{text}' is not made of points, 'x y;x y' in pixels")
    return points


def polygons_of(text: str) -> list[NDArray[np.float64]]:
    """Return the polygons of an index's cell, each of shape ``(n, 2)``.

    Parameters
    ----------
    text : str
        Pairs of numbers for each polygon; polygons are separated by semicolons.

    Returns
    -------
    list of ndarray of float
        x, y of the corners.

    Raises
    ------
    ValueError
        If one is not made of three points or more.
    """
    try:
        polygons = [np.array(p.split(), np.float64).reshape(-1, 2) for p in text.split(";") if text]
    except ValueError:
        polygons = [np.full((3, 2), np.nan)]
    if any(len(p) < 3 or not np.isfinite(p).all() for p in polygons):
        raise ValueError(f"'{text[:40]}' is not made of polygons, 'x y x y x y;x y x y x y' in pixels")
    return polygons


def points_text(points_px: Iterable[tuple[float, float]]) -> str:
    """Return points as an index's cell.

    Parameters
    ----------
    points_px : iterable of tuple of float
        x, y.

    Returns
    -------
    str
        What `points_of` reads.
    """
    return ";".join(f"{x:g} {y:g}" for x, y in points_px)


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write an index as CSV; one that was there stays until the new one is whole.

    Parameters
    ----------
    path : Path
        File to write.
    entries : sequence of Entry
        The rows.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(Entry.model_fields))
        writer.writeheader()
        writer.writerows(e.model_dump() for e in entries)


def read_index(path: Path) -> list[Entry]:
    """Read an index.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of Entry
        The rows.

    Raises
    ------
    DataError
        If it cannot be read, or a row does not fit.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(
            f"The index {path} cannot be read: {e}. Make it with: minugan-train data import"
        ) from e
    entries = []
    for line, row in enumerate(rows, start=2):
        if row.pop("colours", None):  # a column of indexes made before 0.11, empty or "uneven"
            raise DataError(
                f"The index {path}, line {line}: its colours are marked as uneven. They are not levelled any more. "
                "Make the index again with: minugan-train data import"
            )
        try:
            entries.append(Entry.model_validate(row))
        except ValidationError as e:
            problem = e.errors()[0]
            raise DataError(f"The index {path}, line {line}: {problem['loc']}: {problem['msg']}.") from e
    return entries


def check_scanners(wanted: Iterable[str], there: Iterable[str], what: str) -> None:
    """Refuse scanners that nothing is of, as one whose name is misspelt.

    Parameters
    ----------
    wanted : iterable of str
        Names of scanners.
    there : iterable of str
        The scanner of each thing; "" where it is not known.
    what : str
        What a thing is, for the message.

    Raises
    ------
    DataError
        If nothing is of one of them.
    """
    known = set(there)
    for scanner in wanted:
        if scanner not in known:
            names = ", ".join(sorted(known - {""}))
            raise DataError(f"No {what} is of the scanner '{scanner}'. There are: {names}.")
