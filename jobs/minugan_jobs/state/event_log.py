"""log.jsonl: what happened in a batch, one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from wsi_minugan.outputs.atomic import not_written
from wsi_minugan.outputs.lines import cut_broken_line


class EventLog(logging.Handler):
    """Appends events, and the log records of this project, to OUT/log.jsonl.

    Parameters
    ----------
    out : Path
        Output folder.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(logging.INFO)
        self._path = out / "log.jsonl"

    def __enter__(self) -> EventLog:
        for name in ("minugan_jobs", "wsi_minugan"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("minugan_jobs", "wsi_minugan"):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a log record.

        Parameters
        ----------
        record : logging.LogRecord
            What a module of this project logged.
        """
        self.write("log", level=record.levelname, message=record.getMessage())

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; fields that are None are left out.

        Parameters
        ----------
        event : str
            Kind of the event.
        **fields : any
            What JSON can hold.

        Raises
        ------
        OutputError
            If the disk does not take it.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        line |= {k: v for k, v in fields.items() if v is not None}
        self.acquire()
        try:
            with self._path.open("ab+") as f:
                cut_broken_line(f)
                f.write(json.dumps(line).encode() + b"\n")
        except OSError as e:
            raise not_written(self._path, e) from e
        finally:
            self.release()
