"""A model's networks in this process, on whatever device there is.

Every forward pass has the same batch shape (a last, smaller batch is filled up), so the arithmetic of a patch is the same whatever
its companions.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_minugan.config import OUT_CHANNELS, PATCH_PX, SQUARE_PX, Precision
from wsi_minugan.errors import DeviceError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.devices import DeviceType, choose_device, settle_precision
from wsi_minugan.minugan.networks.ensemble import ClassifierEnsemble
from wsi_minugan.minugan.networks.loading import load_classifiers, load_network
from wsi_minugan.minugan.scoring import ScoringNetwork, restained
from wsi_minugan.minugan.second_stage import Patches
from wsi_minugan.minugan.stain import StainMap

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OwnNetworks:
    """The generator and the classifiers of a bundle, loaded.

    Parameters
    ----------
    bundle : Bundle
        Card and folder of the model; its weights are loaded from there.
    device : {"auto", "cpu", "cuda"}
        Where to run; "auto" takes CUDA if there is one.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Arithmetic; "auto" is bf16 on CUDA and on CPUs that are faster in it, else fp32.
    batch_size : int
        Patches per forward pass; halved, and remembered, when a CUDA device runs out of memory.
    threads : int
        Torch threads on the CPU.
    compiled : bool
        Compile the generator with torch.compile.

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
        If CUDA is asked for and missing, or its memory does not hold one patch.
    ModelError
        If the weights do not fit the architecture.
    """

    def __init__(
        self, bundle: Bundle, device: str, precision: Precision, batch_size: int, threads: int, compiled: bool
    ) -> None:
        torch.set_num_threads(threads)
        self.device_type: DeviceType = choose_device(device)
        self.precision = settle_precision(precision, self.device_type)
        self.batch_size = batch_size
        self._device = torch.device(self.device_type)
        network = ScoringNetwork(load_network(bundle), _DTYPES[self.precision]).to(self._device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._score = torch.compile(network) if compiled else network
        stage = bundle.card.candidate_stage
        self._ensemble = (
            ClassifierEnsemble(
                load_classifiers(bundle),
                stage.refuse_below,
                self._device,
                _DTYPES[self.precision],
                stage.view_densities,
            )
            if stage
            else None
        )

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
        side = len(patches[0]) if len(patches) else PATCH_PX
        half = side // SQUARE_PX
        out = np.empty((len(patches), half, half, OUT_CHANNELS * SQUARE_PX**2), np.uint8)
        start = 0
        while start < len(patches):
            size = max(1, (at_once or self.batch_size) * PATCH_PX**2 // side**2)
            part = patches[start : start + size]
            try:
                out[start : start + len(part)] = self._forward(part, size)
            except torch.cuda.OutOfMemoryError as e:
                self._halve_batch(e)
                continue
            start += len(part)
        return out

    @torch.inference_mode()
    def _forward(self, part: Patches, size: int) -> NDArray[np.uint8]:
        full = np.zeros((size, *part[0].shape), np.uint8)
        for k, patch in enumerate(part):
            full[k] = patch
        host = torch.from_numpy(full)
        if self.device_type == "cuda":
            host = host.pin_memory()  # copied while the GPU still works on what came before
        squares: Tensor = self._score(host.to(self._device, non_blocking=True))
        return squares.cpu().numpy()[: len(part)]

    def _halve_batch(self, error: torch.cuda.OutOfMemoryError) -> None:
        if self.batch_size == 1:
            raise DeviceError(
                "The GPU's memory does not hold one patch. Stop other programs on it, or run with --device cpu."
            ) from error
        self.batch_size //= 2
        torch.cuda.empty_cache()
        log.warning("GPU memory is short. The run continues with %d patches per batch.", self.batch_size)

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return what the classifiers say of candidates.

        Parameters
        ----------
        crops : ndarray of uint8, shape (n, 64, 64, 3)
            RGB at 0.3125 um/px, a candidate in the middle of each.

        Returns
        -------
        ndarray of float, shape (n,)
            Logits of "this is a mitotic figure"; zeros where the model has no second stage.
        """
        return np.zeros(len(crops)) if self._ensemble is None else self._ensemble.logits(crops)

    def restained(self, patches: Patches, stain: StainMap) -> NDArray[np.uint8]:
        """Return patches as the networks see them where the stain is moved; the map is computed on the device.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution.
        stain : StainMap
            What is done to their stain.

        Returns
        -------
        ndarray of uint8, shape (n, s, s, 3)
            RGB.
        """
        out = np.stack([*patches])
        for start in range(0, len(out), self.batch_size):
            part = torch.from_numpy(out[start : start + self.batch_size]).to(self._device)
            out[start : start + len(part)] = restained(part, stain).cpu().numpy()
        return out
