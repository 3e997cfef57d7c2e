"""The process that runs a model's networks for all workers of a machine.

    python -m wsi_minugan.minugan.networks.server --model BUNDLE --socket PATH [--device cuda] [--batch-size 64]

Only this process holds the GPU. Reading, blending, objects and writing are the workers'. It ends when its input ends, as it does
when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import logging
import mmap
import os
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn, get_args

import numpy as np

from wsi_minugan.config import Precision
from wsi_minugan.errors import MinuganError
from wsi_minugan.minugan.bundle import load_bundle
from wsi_minugan.minugan.networks.messages import (
    CROP_SHAPE,
    LONGEST_LINE,
    BadMessageError,
    Reply,
    Request,
    half_of,
    line_of,
    memory_bytes,
    request_of,
    shapes_of,
)
from wsi_minugan.minugan.predictor import Networks

log = logging.getLogger(__name__)

_FAILED = 70


class NetworkServer:
    """Answers workers, one request at a time, in the order in which they come.

    Parameters
    ----------
    networks : Networks
        What runs.
    model : str
        Digest of its model.
    path : Path
        Where its socket will be; its folder is this user's alone.
    """

    def __init__(self, networks: Networks, model: str, path: Path) -> None:
        self._networks, self._model = networks, model
        self._one_at_a_time = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Under its name only when it answers: a worker that finds the socket need not wait.
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        self._listener.bind(str(partial))
        self._listener.listen(64)
        partial.replace(path)

    def serve(self) -> NoReturn:
        """Answer until the process ends."""
        while True:
            worker, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(worker,), daemon=True).start()

    def _talk(self, worker: socket.socket) -> None:
        with worker:
            try:
                memory = self._memory_of(worker)
                with worker.makefile("rb") as lines:
                    while line := lines.readline(LONGEST_LINE):
                        worker.sendall(line_of(self._answer(request_of(line), memory)))
            except (OSError, BadMessageError) as e:
                log.info("A worker left: %s", e)
            except Exception:
                # After a failed kernel a process's GPU is of no use: whoever started this one starts another.
                log.exception("The network failed.")
                os._exit(_FAILED)

    def _memory_of(self, worker: socket.socket) -> mmap.mmap:
        line, descriptors, _, _ = socket.recv_fds(worker, LONGEST_LINE, 1)
        try:
            request = request_of(line)
            if request.do != "open" or len(descriptors) != 1:
                raise BadMessageError("the first message brings the memory")
            memory = mmap.mmap(descriptors[0], memory_bytes(request.count))
        except ValueError as e:
            raise BadMessageError(str(e)) from e
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        worker.sendall(line_of(self._reply()))
        return memory

    def _answer(self, request: Request, memory: mmap.mmap) -> Reply:
        try:
            with self._one_at_a_time:
                self._run(request, memory)
        except MinuganError as e:
            return self._reply(str(e), type(e).__name__)
        return self._reply()

    def _run(self, request: Request, memory: mmap.mmap) -> None:
        n, networks = request.count, self._networks
        patch, squares = shapes_of(request.side_px)
        if request.do == "scores":
            patches = half_of(memory, False, n, patch)
            half_of(memory, True, n, squares)[...] = networks.scores(patches, request.at_once)
        elif request.do == "logits":
            crops = half_of(memory, False, n, CROP_SHAPE)
            half_of(memory, True, n, (), np.float64)[...] = networks.logits(crops)
        elif request.do == "restained" and request.stain is not None:
            patches = half_of(memory, False, n, patch)
            half_of(memory, True, n, patch)[...] = networks.restained(patches, request.stain)
        else:
            raise BadMessageError(f"{request.do} comes at another time, or lacks something")

    def _reply(self, error: str = "", kind: str = "") -> Reply:
        networks = self._networks
        return Reply(
            model=self._model,
            device_type=networks.device_type,
            precision=networks.precision,
            batch_size=networks.batch_size,
            error=error,
            kind=kind,
        )


def end_with(descriptor: int) -> None:
    """End this process when a stream ends: whoever writes to it is gone then.

    Parameters
    ----------
    descriptor : int
        Such as that of standard input.
    """
    while os.read(descriptor, 1024):
        pass
    os._exit(0)


def main() -> None:
    """Load a model and answer workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    threading.Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    try:
        from wsi_minugan.minugan.networks.own import OwnNetworks

        bundle = load_bundle(a.model)
        networks = OwnNetworks(bundle, a.device, a.precision, a.batch_size, a.threads, a.compile)
        server = NetworkServer(networks, bundle.digest, a.socket)
    except MinuganError as e:
        raise SystemExit(str(e)) from e
    server.serve()


if __name__ == "__main__":
    main()
