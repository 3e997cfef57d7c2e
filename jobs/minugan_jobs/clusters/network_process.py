"""The process of this machine that holds the GPU: started with a run's workers, replaced when it fails, ended with them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from minugan_jobs.clusters.cluster import shares_network, worker_environment
from wsi_minugan.config import RunSettings
from wsi_minugan.errors import SettingsError
from wsi_minugan.minugan.networks.shared import GIVEN_UP, LOG

log = logging.getLogger(__name__)

_SOCKET = "network.socket"
_MOST_ENDS = 10
"""After so many that soon ended no other is started, and what waits for one fails: whatever ends them, one more does not mend."""
_SOON_S = 600.0
_AGAIN_S = 1.0
_LONGEST_FOLDER = 80
"""Bytes: a socket's whole name has 107 at most."""
_GOODBYE_S = 10.0


class NetworkProcess:
    """A process that runs a model's networks, and its successors.

    Parameters
    ----------
    settings : RunSettings
        Device, arithmetic, batch size and threads.
    model : Path
        Folder of the bundle.
    folder : Path
        A folder of this user alone, for socket and log.
    environment : mapping of str to str
        Variables that it must have before Python starts.

    Attributes
    ----------
    socket : Path
        Where workers reach it, once it is ready.
    """

    def __init__(
        self, settings: RunSettings, model: Path, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.socket = folder / _SOCKET
        self._log = folder / LOG
        self._call = [
            *(sys.executable, "-m", "wsi_minugan.minugan.networks.server"),
            *("--model", str(model), "--socket", str(self.socket), "--device", settings.device),
            *("--precision", settings.precision, "--batch-size", str(settings.batch_size)),
            *("--threads", str(settings.threads), *(["--compile"] if settings.compile else [])),
        ]
        self._environment = os.environ | dict(environment)
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="network process", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """End it."""
        with self._starting:
            self._closing.set()
        if self._process.stdin is not None:
            self._process.stdin.close()  # which it ends by
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._watcher.join()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as said:
            # In a session of its own: Ctrl-C in a terminal is for the run, which ends its processes in order.
            return subprocess.Popen(
                self._call, stdin=subprocess.PIPE, stdout=said, stderr=said, env=self._environment,
                start_new_session=True,
            )  # fmt: skip

    def _watch(self) -> None:
        soon = 0
        while True:
            begun = time.monotonic()
            status = self._process.wait()
            soon = soon + 1 if time.monotonic() - begun < _SOON_S else 1
            if self._closing.wait(_AGAIN_S):
                return
            if soon == _MOST_ENDS:
                log.error("The process that runs the network ended %d times (%s).", soon, self._last_line())
                (self.socket.parent / GIVEN_UP).touch()
                return
            log.warning(
                "The process that runs the network ended (%s). Another is started: %s",
                _how(status), self._last_line(),
            )  # fmt: skip
            with self._starting:
                if self._closing.is_set():
                    return
                self._process = self._start()

    def _last_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


@contextmanager
def shared_network(settings: RunSettings, model: Path) -> Iterator[Path | None]:
    """Start the process that runs a model's networks for all workers, if the settings want one, and end it with the block.

    Parameters
    ----------
    settings : RunSettings
        They say whether the network is shared, and how it runs.
    model : Path
        Folder of the bundle.

    Yields
    ------
    Path or None
        Its socket; the process may still be loading, and who asks it waits. None where each worker has networks of its own.

    Raises
    ------
    SettingsError
        If it cannot be shared, since the workers are not this machine's, or the folder of temporary files has too long a name.
    """
    if not shares_network(settings):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="wsi-minugan-") as folder:
        if len(os.fsencode(folder)) > _LONGEST_FOLDER:
            raise SettingsError(
                f"The folder of temporary files, {folder}, has too long a name for a socket. Set TMPDIR to a shorter one, "
                "or run with --no-share-network."
            )
        process = NetworkProcess(settings, model, Path(folder), worker_environment(settings))
        try:
            yield process.socket
        finally:
            process.close()
