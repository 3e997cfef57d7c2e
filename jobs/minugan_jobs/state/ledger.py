"""The ledger: a batch's state in SQLite (WAL), the truth about what is done. One process writes; any may read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_minugan.errors import DiskFullError, OutputError
from wsi_minugan.outputs.manifest import manifest_checksum
from wsi_minugan.outputs.models import SlideState
from wsi_minugan.slides.inputs import SlideInput, slide_of

LEDGER = "ledger.sqlite"
VERSION = "1"

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS slides (
  slide_id TEXT PRIMARY KEY, position INTEGER NOT NULL, path TEXT NOT NULL, mpp REAL,
  status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'failed')),
  request TEXT NOT NULL DEFAULT '', key TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
  started_s REAL, ended_s REAL, seconds REAL NOT NULL DEFAULT 0, blocks INTEGER, row TEXT);
CREATE TABLE IF NOT EXISTS blocks (
  slide_id TEXT NOT NULL, stage TEXT NOT NULL, block INTEGER NOT NULL, patches INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (slide_id, stage, block)) WITHOUT ROWID;
"""

# "sealed" is the manifest's checksum; the column keeps its first name, so that folders of earlier versions open.
_ADDED = {"seen": "TEXT NOT NULL DEFAULT ''", "sealed": "TEXT NOT NULL DEFAULT ''"}
"""Columns of the table slides that earlier ledgers lack."""


@dataclass(frozen=True)
class SlideRecord:
    """What the ledger knows of a slide.

    Attributes
    ----------
    slide : SlideInput
        Identifier, path and the user's mpp.
    status : str
        pending, running, done or failed.
    key : str
        Digest of slide, settings and model of the work recorded; empty before the first plan.
    attempts : int
        How often it was begun.
    error : str
        Why it failed.
    request : str
        Digest of the settings it was last begun with.
    seen : str
        What its files were like when it failed; see `file_state`.
    """

    slide: SlideInput
    status: str
    key: str
    attempts: int
    error: str
    request: str = ""
    seen: str = ""


class Ledger:
    """Batch state on disk.

    Parameters
    ----------
    out : Path
        Output folder of the run.
    read_only : bool
        For looking on while another process writes.

    Raises
    ------
    OutputError
        If the ledger cannot be opened, or another version wrote it.
    """

    def __init__(self, out: Path, read_only: bool = False) -> None:
        self.path = out / LEDGER
        with self._readable():
            if read_only:
                if not self.path.is_file():
                    raise OutputError(f"{out} holds no run (no {LEDGER}). Name the output folder of a run.")
                self._db = _looking_on(self.path)
            else:
                self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(_TABLES)
                for name in _ADDED.keys() - self._columns():
                    self._db.execute(f"ALTER TABLE slides ADD COLUMN {name} {_ADDED[name]}")
                self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (VERSION,))
            version = self._db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        if version is None or version[0] != VERSION:
            raise OutputError(
                f"{self.path} was written by another version of this program. Choose another folder."
            )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            if getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError(
                    f"The ledger {self.path} cannot be written: the disk is full. Free some space there. "
                    "Then run the same command again to resume."
                ) from e
            raise OutputError(
                f"The ledger {self.path} cannot be used: {e}. Check the folder and its disk, or choose another folder."
            ) from e
        except OSError as e:
            raise OutputError(
                f"{self.path.parent} cannot be read: {e.strerror or e}. Check who may read the folder."
            ) from e

    @contextmanager
    def _transaction(self, keep: bool = True) -> Iterator[sqlite3.Connection]:
        """Do all that is written in the block, or nothing of it; with `keep` it is on the disk when the block ends."""
        with self._readable():
            # Notes on blocks may be lost in a power cut: these are done again. The rest must be there before files follow it.
            self._db.execute(f"PRAGMA synchronous = {'FULL' if keep else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _write(self, statement: str, values: Sequence[Any] = ()) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    def _columns(self) -> set[str]:
        return {row[1] for row in self._db.execute("PRAGMA table_info(slides)")}

    def _added(self, name: str) -> str:
        """Return a column for a query; of an earlier ledger that is only looked at, its default."""
        return name if name in self._columns() else "''"

    def add_slides(self, slides: Sequence[SlideInput], hidden: bool = False) -> None:
        """Enter a batch's slides, `hidden` without their paths; those known keep their state, and a part of them their order.

        Parameters
        ----------
        slides : sequence of SlideInput
            The batch, in the order in which it is to be done.
        hidden : bool
            Whether paths are left out, for pseudonyms.
        """
        with self._transaction() as db:
            known = dict(db.execute("SELECT slide_id, position FROM slides").fetchall())
            if known.keys() <= {s.slide_id for s in slides}:
                known = {}
            first = max(known.values(), default=-1) + 1
            db.executemany(
                "INSERT INTO slides (slide_id, position, path, mpp) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (slide_id) DO UPDATE SET position = excluded.position, path = excluded.path, mpp = excluded.mpp",
                [
                    (s.slide_id, known.get(s.slide_id, first + k), "" if hidden else s.source, s.mpp)
                    for k, s in enumerate(slides)
                ],
            )

    def slides(self) -> list[SlideRecord]:  # numpydoc ignore=RT01
        """Return all slides in the batch's order."""
        with self._readable():
            seen = self._added("seen")
            rows = self._db.execute(
                f"SELECT slide_id, path, mpp, status, key, attempts, error, request, {seen} FROM slides "  # noqa: S608 - see _added
                "ORDER BY position, slide_id"
            ).fetchall()
        return [SlideRecord(slide_of(*r[:3]), *r[3:]) for r in rows]

    def states(self) -> list[SlideState]:  # numpydoc ignore=RT01
        """Return the rows of slides.csv."""
        with self._readable():
            rows = self._db.execute(
                "SELECT slide_id, path, status, error, seconds, row FROM slides ORDER BY position, slide_id"
            ).fetchall()
        states = []
        for slide_id, path, status, error, seconds, row in rows:
            known = SlideState.model_validate_json(row).model_dump() if row and status == "done" else {}
            known |= {
                "slide_id": slide_id,
                "path": path,
                "status": status,
                "error": error,
                "seconds": round(seconds, 2),
            }
            states.append(SlideState(**known))
        return states

    def begin(self, slide_id: str, request: str) -> None:
        """Note that a slide is being worked on, for settings of the digest `request`.

        Parameters
        ----------
        slide_id, request : str
            Name of the slide's results, and digest of the settings.
        """
        self._write(
            "UPDATE slides SET status = 'running', attempts = attempts + 1, error = '', started_s = ?, request = ? "
            "WHERE slide_id = ?",
            (time.time(), request, slide_id),
        )

    def planned(
        self, slide_id: str, key: str, blocks: int, kept: Mapping[str, Collection[int]] | None = None
    ) -> None:
        """Note a plan, and forget all finished blocks but those `kept`, by stage; with none the work begins anew.

        Parameters
        ----------
        slide_id, key : str
            Name of the slide's results, and key of its work.
        blocks : int
            How many blocks the plan has.
        kept : mapping of str to collection of int, optional
            Finished blocks that stay, by stage.
        """
        with self._transaction() as db:
            noted = db.execute("SELECT stage, block FROM blocks WHERE slide_id = ?", (slide_id,)).fetchall()
            lost = [(slide_id, stage, k) for stage, k in noted if not kept or k not in kept.get(stage, ())]
            db.executemany("DELETE FROM blocks WHERE slide_id = ? AND stage = ? AND block = ?", lost)
            if not kept:
                db.execute("UPDATE slides SET seconds = 0, row = NULL WHERE slide_id = ?", (slide_id,))
            db.execute(
                "UPDATE slides SET key = ?, blocks = ?, sealed = '' WHERE slide_id = ?",
                (key, blocks, slide_id),
            )

    def blocks_ended(
        self, slide_id: str, stage: str, blocks: Sequence[int], patches: int, seconds: float
    ) -> None:
        """Note finished blocks of a stage, with what they took together.

        Parameters
        ----------
        slide_id, stage : str
            Name of the slide's results, and the stage.
        blocks : sequence of int
            Indices of the blocks.
        patches : int
            Patches that went through the network.
        seconds : float
            Time on the worker, s.
        """
        with self._transaction(keep=False) as db:
            db.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)",
                [(slide_id, stage, block, 0 if k else patches) for k, block in enumerate(blocks)],
            )
            db.execute("UPDATE slides SET seconds = seconds + ? WHERE slide_id = ?", (seconds, slide_id))

    def blocks(self, slide_id: str, stage: str) -> set[int]:
        """Return the finished blocks of a stage.

        Parameters
        ----------
        slide_id, stage : str
            Name of the slide's results, and the stage.

        Returns
        -------
        set of int
            Indices of the blocks.
        """
        with self._readable():
            rows = self._db.execute(
                "SELECT block FROM blocks WHERE slide_id = ? AND stage = ?", (slide_id, stage)
            )
            return {r[0] for r in rows}

    def blocks_done(self) -> dict[str, int]:  # numpydoc ignore=RT01
        """Return how many blocks of each running slide are analysed."""
        with self._readable():
            rows = self._db.execute(
                "SELECT slide_id, count(*) FROM blocks JOIN slides USING (slide_id) "
                "WHERE status = 'running' AND stage = 'analyse' GROUP BY slide_id"
            )
            return dict(rows.fetchall())

    def done(self, slide_id: str, row: SlideState | None, seconds: float) -> None:
        """Note that a slide's manifest is written, and its digest; without a row, that an earlier one still holds.

        A digest noted before stays: a manifest that changed since its slide was finished must not be taken for the right one.

        Parameters
        ----------
        slide_id : str
            Name of the slide's results.
        row : SlideState or None
            The slide's row of slides.csv.
        seconds : float
            Time since the ledger was last told, s.
        """
        sealed = manifest_checksum(self.path.parent / slide_id)
        # The path stands in a column of its own, or must not stand here at all.
        text = row.model_copy(update={"path": ""}).model_dump_json() if row else None
        with self._transaction() as db:
            db.execute("UPDATE slides SET sealed = ? WHERE slide_id = ? AND sealed = ''", (sealed, slide_id))
            db.execute(
                "UPDATE slides SET status = 'done', error = '', ended_s = ?, seconds = seconds + ?, row = coalesce(?, row) "
                "WHERE slide_id = ?",
                (time.time(), seconds, text, slide_id),
            )
            db.execute("DELETE FROM blocks WHERE slide_id = ?", (slide_id,))

    def checksums(self) -> dict[str, str]:  # numpydoc ignore=RT01
        """Return the digests of the manifests of finished slides, where they were noted."""
        with self._readable():
            checksum = self._added("sealed")
            rows = self._db.execute(f"SELECT slide_id, {checksum} FROM slides").fetchall()  # noqa: S608 - see _added
        return {slide_id: digest for slide_id, digest in rows if digest}

    def failed(self, slide_id: str, error: str, seen: str = "") -> None:
        """Note why a slide failed, and what its files were like.

        Parameters
        ----------
        slide_id, error, seen : str
            Name of the slide's results, why as a sentence, and the state of its files, from `file_state`.
        """
        self._write(
            "UPDATE slides SET status = 'failed', error = ?, seen = ?, ended_s = ? WHERE slide_id = ?",
            (error, seen, time.time(), slide_id),
        )

    def reset(self, status: str) -> int:
        """Make the slides of a status pending again, and return how many there were.

        Parameters
        ----------
        status : str
            Such as "failed".

        Returns
        -------
        int
            How many there were.
        """
        with self._transaction() as db:
            return db.execute(
                "UPDATE slides SET status = 'pending', error = '' WHERE status = ?", (status,)
            ).rowcount

    def note(self, name: str, value: str) -> None:
        """Keep a fact of the batch.

        Parameters
        ----------
        name, value : str
            The fact's name, and the fact.
        """
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def fact(self, name: str) -> str | None:
        """Return a fact that `note` kept.

        Parameters
        ----------
        name : str
            The fact's name.

        Returns
        -------
        str or None
            The fact, or None where there is none.
        """
        with self._readable():
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _looking_on(path: Path) -> sqlite3.Connection:
    """Open a ledger for reading, also in a folder that must not be written to."""
    address = path.absolute().as_uri()
    db = sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=30)
    try:
        db.execute("SELECT value FROM meta").fetchone()
    except sqlite3.OperationalError:
        # SQLite wants files of its own beside the ledger; where no run left any, the file is whole without them.
        if path.with_name(path.name + "-wal").exists():
            raise
        db.close()
        db = sqlite3.connect(f"{address}?immutable=1", uri=True)
    return db
