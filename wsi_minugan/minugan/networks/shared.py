"""A model's networks in another process of this machine, which several workers share: for them, one GPU is one process's."""

from __future__ import annotations

import logging
import mmap
import os
import socket
import time
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wsi_minugan import errors
from wsi_minugan.config import MOST_PATCHES_ACROSS, PATCH_PX
from wsi_minugan.errors import DeviceError
from wsi_minugan.minugan.devices import DeviceType
from wsi_minugan.minugan.networks.messages import (
    CROP_BYTES,
    CROP_SHAPE,
    LONGEST_LINE,
    PATCH_BYTES,
    Reply,
    Request,
    half_of,
    line_of,
    memory_bytes,
    shapes_of,
)
from wsi_minugan.minugan.second_stage import Patches
from wsi_minugan.minugan.stain import StainMap

log = logging.getLogger(__name__)

LOG = "network.log"
"""Beside the socket: what the process says, which is little, until it fails."""
GIVEN_UP = "network.given-up"
"""Beside the socket, once no other process is started in place of those that failed."""
_TRIES = 3
_AGAIN_S = 0.1


class SharedNetworks:
    """Networks that another process runs.

    Where that process ends, the same is asked of the one that takes its place.

    Parameters
    ----------
    path : Path
        Its socket.
    model : str
        Digest of the model that it must have.
    patches : int
        How many of 256 px are sent at once, at most.
    wait_s : float
        Longest wait for the process to begin.

    Attributes
    ----------
    device_type : {"cpu", "cuda"}
        Where they run.
    precision : {"fp32", "bf16", "fp16"}
        The arithmetic.
    batch_size : int
        Patches per forward pass.

    Raises
    ------
    DeviceError
        If the process does not begin, or has another model.
    """

    def __init__(self, path: Path, model: str, patches: int, wait_s: float = 180.0) -> None:
        self._path, self._model, self._wait_s = path, model, wait_s
        self._patches = max(patches, MOST_PATCHES_ACROSS**2)
        self._memory, self._descriptor = _new_memory(memory_bytes(self._patches))
        self._socket: socket.socket | None = None
        self._answers: BinaryIO | None = None
        hello = self._open()
        self.device_type: DeviceType = hello.device_type
        self.precision = hello.precision
        self.batch_size = hello.batch_size

    def scores(self, patches: Patches, at_once: int | None = None) -> NDArray[np.uint8]:
        """Return the generator's scores.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution; s is a multiple of 32, such as 256.
        at_once : int, optional
            Patches of 256 px per forward pass, in place of `batch_size`; of larger ones there are fewer.

        Returns
        -------
        ndarray of uint8, shape (n, s / 2, s / 2, 12)
            255 times the scores, in squares of pixels; see `predictor.from_squares`.
        """
        return self._of_patches(patches, 1, at_once=at_once)

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return what the classifiers say of candidates.

        Parameters
        ----------
        crops : ndarray of uint8, shape (n, 64, 64, 3)
            RGB at 0.3125 um/px, a candidate in the middle of each.

        Returns
        -------
        ndarray of float, shape (n,)
            Logits of "this is a mitotic figure".
        """
        out = np.empty(len(crops))
        most = self._patches * PATCH_BYTES // CROP_BYTES
        for start in range(0, len(crops), most):
            part = crops[start : start + most]
            half_of(self._memory, False, len(part), CROP_SHAPE)[...] = part
            self._ask(Request(do="logits", count=len(part)))
            out[start : start + len(part)] = half_of(self._memory, True, len(part), (), np.float64)
        return out

    def restained(self, patches: Patches, stain: StainMap) -> NDArray[np.uint8]:
        """Return patches as the networks see them where the stain is moved; the map is computed on the device.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution; s is a multiple of 32, such as 256.
        stain : StainMap
            What is done to their stain.

        Returns
        -------
        ndarray of uint8, shape (n, s, s, 3)
            RGB.
        """
        return self._of_patches(patches, 0, stain=stain)

    def close(self) -> None:
        """Leave the process, which goes on for others."""
        for opened in (self._answers, self._socket):
            if opened is not None:
                opened.close()
        self._answers = self._socket = None

    def _of_patches(
        self, patches: Patches, answer: int, at_once: int | None = None, stain: StainMap | None = None
    ) -> NDArray[np.uint8]:
        """Have something made of patches, as many at a time as the memory holds; see `shapes_of` for the answer's shape."""
        side_px = len(patches[0]) if len(patches) else PATCH_PX
        shapes = shapes_of(side_px)
        out = np.empty((len(patches), *shapes[answer]), np.uint8)
        most = max(1, self._patches * PATCH_PX**2 // side_px**2)
        for start in range(0, len(patches), most):
            part = patches[start : start + most]
            for place, patch in zip(half_of(self._memory, False, len(part), shapes[0]), part, strict=True):
                place[...] = patch
            do: Literal["scores", "restained"] = "scores" if stain is None else "restained"
            self._ask(Request(do=do, count=len(part), side_px=side_px, at_once=at_once, stain=stain))
            out[start : start + len(part)] = half_of(self._memory, True, len(part), shapes[answer])
        return out

    def _ask(self, request: Request) -> None:
        """Have a request answered; what was put into the memory stays there, so it can be asked again."""
        for tried in range(_TRIES):
            try:
                if self._socket is None:
                    self._open()
                reply = self._exchange(request)
            except (OSError, EOFError, ValidationError) as e:
                log.warning("The process that runs the network ended (%s).", e)
                self.close()
                if tried == _TRIES - 1:
                    raise DeviceError(
                        f"The process that runs the network ended {_TRIES} times in a row. {self._last_words()}"
                    ) from e
                continue
            self.batch_size = reply.batch_size
            if reply.error:
                kind = getattr(errors, reply.kind, DeviceError)
                raise kind(reply.error)
            return

    def _exchange(self, request: Request, descriptor: int | None = None) -> Reply:
        assert self._socket is not None
        assert self._answers is not None
        if descriptor is None:
            self._socket.sendall(line_of(request))
        else:
            socket.send_fds(self._socket, [line_of(request)], [descriptor])
        line = self._answers.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise EOFError("it said nothing more")
        return Reply.model_validate_json(line)

    def _open(self) -> Reply:
        """Reach the process, which may still be starting, and hand it the memory."""
        end = time.monotonic() + self._wait_s
        while True:
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.connect(str(self._path))
                self._answers = self._socket.makefile("rb")
                hello = self._exchange(Request(do="open", count=self._patches), self._descriptor)
                break
            except (OSError, EOFError, ValidationError) as e:
                self.close()
                if time.monotonic() > end or (self._path.parent / GIVEN_UP).exists():
                    raise DeviceError(
                        f"The process that runs the network does not begin. {self._last_words()}"
                    ) from e
                time.sleep(_AGAIN_S)
        if hello.model != self._model:
            self.close()
            raise DeviceError(
                "The process that runs the network has another model than this run. Run the same command again."
            )
        return hello

    def _last_words(self) -> str:
        try:
            lines = (self._path.parent / LOG).read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        said = f"It said last: {lines[-1]}. " if lines else ""
        return f"{said}Run the same command again, or with --no-share-network."


def _new_memory(size: int) -> tuple[mmap.mmap, int]:
    """Return memory that another process can be given, without a name: it goes when both are gone, however they end."""
    descriptor = os.memfd_create("wsi-minugan", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return mmap.mmap(descriptor, size), descriptor
