"""A CSV of slides: path, slide_id, mpp."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wsi_minugan.errors import InputError

COLUMNS = ("path", "slide_id", "mpp")
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r"sep=(.)")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class Row:
    """One slide of a table.

    Attributes
    ----------
    line : int
        Where it stands in the file, from 1.
    path : str
        File or URL, as it is written.
    slide_id : str
        The user's name for it; empty where there is none.
    mpp : float or None
        The user's um/px.
    """

    line: int
    path: str
    slide_id: str
    mpp: float | None


def read_table(table: Path) -> list[Row]:
    """Read a CSV of slides, separated by commas, semicolons or tabs, as spreadsheets write them.

    Names of columns may be written in any case and with spaces. Nothing is passed over: what does not fit is an error.

    Parameters
    ----------
    table : Path
        The file.

    Returns
    -------
    list of Row
        In the file's order.

    Raises
    ------
    InputError
        If it cannot be read, has other columns or a column twice, more values in a line than columns, or a number that is none.
    """
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(
            f"The table {table} cannot be read: {e}. Give a CSV in UTF-8 with a column path."
        ) from e
    lines = text.splitlines(keepends=True)
    said = _SEPARATOR_LINE.fullmatch(lines[0].strip()) if lines else None
    skipped = 1 if said else 0
    separator = said[1] if said else _separator_of(lines[0] if lines else "")
    rows, columns = [], None
    try:
        # Whole text, not lines: a value in quotes may hold line ends.
        reader = csv.reader(
            io.StringIO("".join(lines[skipped:]), newline=""),
            delimiter=separator,
            skipinitialspace=True,
            strict=True,
        )
        for values in reader:
            cells = [v.strip() for v in values]
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(table, cells)
            else:
                rows.append(_row(table, reader.line_num + skipped, columns, cells, separator))
    except csv.Error as e:
        raise InputError(
            f"The table {table} cannot be read: {e}. Give a CSV in UTF-8 with a column path."
        ) from e
    if not rows:
        raise InputError(f"The table {table} has no rows with a column 'path' (optional: slide_id, mpp).")
    return rows


def _separator_of(head: str) -> str:
    """Return what separates the columns of a header: whatever stands most often in it."""
    return max(_SEPARATORS, key=head.count)


def _columns(table: Path, cells: list[str]) -> list[str]:
    names = [re.sub(r"[\s-]+", "_", c.casefold()) for c in cells]
    names = ["slide_id" if n == "slideid" else n for n in names]
    while names and not names[-1]:
        names.pop()  # spreadsheets end lines with empty columns
    if "path" not in names:
        raise InputError(
            f"The table {table} has no column 'path' in its first line (optional: slide_id, mpp)."
        )
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"The table {table} has the column '{twice[0]}' more than once. Keep one of them.")
    unknown = [c for c, n in zip(cells, names, strict=False) if n not in COLUMNS]
    if unknown:
        raise InputError(
            f"The table {table} has columns that are not known: {', '.join(repr(c) for c in unknown)}. Known are path, slide_id and mpp "
            "(um/px). Rename or remove the others."
        )
    return names


def _row(table: Path, line: int, columns: list[str], cells: list[str], separator: str) -> Row:
    if any(cells[len(columns) :]):
        raise InputError(
            f"The table {table}, line {line}, has {len(cells)} values for {len(columns)} columns. Put values that hold the separator "
            f"('{separator}') into quotes, or separate by semicolons where the comma is the decimal sign."
        )
    values = dict(zip(columns, cells, strict=False))
    if not values.get("path"):
        raise InputError(f"The table {table}, line {line}, has no path.")
    return Row(line, values["path"], values.get("slide_id", ""), _number(table, line, values.get("mpp", "")))


def _number(table: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        # float() also takes 1_0 and digits of other scripts.
        return float(
            (text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text)
            .encode("ascii")
            .replace(b"_", b"x")
        )
    except ValueError as e:
        raise InputError(f"The table {table}, line {line}: mpp '{text}' is not a number.") from e
