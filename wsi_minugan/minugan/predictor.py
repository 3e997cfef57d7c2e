"""From patches of pixels to scores, on whatever device there is.

A patch's scores depend on its own pixels alone: every forward pass has the same batch shape (a last, smaller batch is
filled up), so the arithmetic of a patch is the same whatever its companions. That also holds for test-time augmentation at
patches that may hold a mitosis, and for the ink in which there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wsi_minugan.config import EDGE_PX, PATCH_PX, Precision
from wsi_minugan.errors import DeviceError, ModelError
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.classifier import CandidateClassifier, new_classifier
from wsi_minugan.minugan.devices import choose_device, settle_precision
from wsi_minugan.minugan.generator import MITOSIS_CHANNEL, Generator
from wsi_minugan.minugan.ink import ink_in
from wsi_minugan.minugan.scoring import ScoringNetwork, from_squares, restained
from wsi_minugan.minugan.second_stage import SecondStage
from wsi_minugan.minugan.stain import StainMap

log = logging.getLogger(__name__)

_MIRRORED = (np.s_[::-1, :], np.s_[:, ::-1], np.s_[::-1, ::-1])
_LEAST_SCORE = 32
"""Below it no score becomes a mitosis, so that no ink need be looked for."""

N = TypeVar("N", bound=nn.Module)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Predictor:
    """A loaded model, ready to score patches.

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
        Compile the network with torch.compile: a minute at the start, for long runs on a GPU.

    Attributes
    ----------
    bundle : Bundle
        The model, with its card.
    device : torch.device
        Where it runs.
    precision : {"fp32", "bf16", "fp16"}
        Arithmetic that "auto" came to, or that was asked for.
    forwards : int
        Patches that went through the network so far, test-time augmentation included.
    second_stage : SecondStage or None
        What judges the generator's candidates.

    Raises
    ------
    DeviceError
        If CUDA is asked for and missing, or its memory does not hold one patch.
    ModelError
        If the weights do not fit the architecture.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 8,
        threads: int = 1,
        compiled: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        kind = choose_device(device)
        self.bundle = bundle
        self.device = torch.device(kind)
        self.precision = settle_precision(precision, kind)
        self.dtype = _DTYPES[self.precision]
        self.batch_size = batch_size
        self.forwards = 0
        look = bundle.card.test_time_augmentation
        self._augment_from = round(255 * look.least_score) if look else None
        self._highest = look is not None and look.mitosis == "highest"
        network = ScoringNetwork(load_network(bundle), self.dtype).to(self.device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._score = torch.compile(network) if compiled else network
        stage = bundle.card.candidate_stage
        self.second_stage = SecondStage(load_classifiers(bundle), stage, self.device) if stage else None

    def predict(
        self, patches: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], stain: StainMap | None = None
    ) -> NDArray[np.uint8]:
        """Score patches by the whole model: generator, test-time augmentation and second stage, as its card has them.

        Mitosis scores are 0 where `ink_in` finds marker ink.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (256, 256, 3), or one of all
            RGB at the model's resolution.
        stain : StainMap, optional
            What is done to their stain first, for both stages; nothing by default, whatever the card says.

        Returns
        -------
        ndarray of uint8, shape (n, 3, 256, 256)
            255 times the score of nucleus, mitosis, boundary.
        """
        seen = patches if stain is None else self.restained(patches, stain)
        out = self.first_stage(seen)
        if self.second_stage is not None:
            self.second_stage.judge(seen, out)
        for k, scores in enumerate(out[:, MITOSIS_CHANNEL]):
            if scores.max() >= _LEAST_SCORE:
                scores[ink_in(patches[k])] = 0
        return out

    def restained(
        self, patches: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], stain: StainMap
    ) -> NDArray[np.uint8]:
        """Return patches as the network sees them where the stain is moved; the map is computed on the device.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (256, 256, 3), or one of all
            RGB at the model's resolution.
        stain : StainMap
            What is done to their stain.

        Returns
        -------
        ndarray of uint8, shape (n, 256, 256, 3)
            RGB.
        """
        out = np.empty((len(patches), PATCH_PX, PATCH_PX, 3), np.uint8)
        for start in range(0, len(patches), self.batch_size):
            part = torch.from_numpy(np.stack([*patches[start : start + self.batch_size]])).to(self.device)
            out[start : start + len(part)] = restained(part, stain).cpu().numpy()
        return out

    def first_stage(self, patches: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Score patches by the generator, without the second stage; with test-time augmentation where the card asks for it.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (256, 256, 3), or one of all
            RGB at the model's resolution.

        Returns
        -------
        ndarray of uint8, shape (n, 3, 256, 256)
            255 times the score of nucleus, mitosis, boundary.
        """
        out = self._scores_of(patches, None)
        doubtful = self._doubtful(out)
        # On a CPU a batch of one patch's views takes no longer a patch, and is never filled up in vain.
        at_once = len(_MIRRORED) if self.device.type == "cpu" else None
        views = self._scores_of([patches[k][m] for k in doubtful for m in _MIRRORED], at_once)
        looks = views.reshape(len(doubtful), len(_MIRRORED), *out.shape[1:])
        for k, mirrored in zip(doubtful, looks, strict=True):
            seen = np.stack([out[k], *(view[:, *m] for m, view in zip(_MIRRORED, mirrored, strict=True))])
            out[k] = (seen.sum(axis=0, dtype=np.uint16) + 2) // len(seen)
            if self._highest:
                out[k, MITOSIS_CHANNEL] = seen[:, MITOSIS_CHANNEL].max(axis=0)
        return out

    def _doubtful(self, scores: NDArray[np.uint8]) -> list[int]:
        """Return the indices of the patches that deserve test-time augmentation."""
        if self._augment_from is None:
            return []
        inner = scores[:, MITOSIS_CHANNEL, EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
        return [k for k, mitosis in enumerate(inner) if mitosis.max() >= self._augment_from]

    def _scores_of(
        self, patches: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], at_once: int | None
    ) -> NDArray[np.uint8]:
        """Score patches in batches of `at_once`, or else of `batch_size`, which may shrink on the way."""
        out = np.empty((len(patches), 3, PATCH_PX, PATCH_PX), np.uint8)
        start = 0
        while start < len(patches):
            size = at_once or self.batch_size
            part = patches[start : start + size]
            try:
                out[start : start + len(part)] = self._forward(part, size)
            except torch.cuda.OutOfMemoryError as e:
                self._halve_batch(e)
                continue
            start += len(part)
        self.forwards += len(patches)
        return out

    @torch.inference_mode()
    def _forward(self, part: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        full = np.zeros((size, PATCH_PX, PATCH_PX, 3), np.uint8)
        for k, patch in enumerate(part):
            full[k] = patch
        host = torch.from_numpy(full)
        if self.device.type == "cuda":
            host = host.pin_memory()  # copied while the GPU still works on what came before
        squares: Tensor = self._score(host.to(self.device, non_blocking=True))
        return from_squares(squares.cpu().numpy())[: len(part)]

    def _halve_batch(self, error: torch.cuda.OutOfMemoryError) -> None:
        if self.batch_size == 1:
            raise DeviceError(
                "The GPU's memory does not hold one patch. Stop other programs on it, or run with --device cpu."
            ) from error
        self.batch_size //= 2
        torch.cuda.empty_cache()
        log.warning("GPU memory is short. The run continues with %d patches per batch.", self.batch_size)


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read weights; that a card names their digest says nothing of what is in them."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as e:
        raise ModelError(f"The weights {path} cannot be read ({e}). Copy the model again.") from e
    if any(t.is_complex() for t in tensors.values()):
        raise ModelError(f"The weights {path} are complex numbers, which no network here has.")
    return tensors


def load_classifiers(bundle: Bundle) -> list[CandidateClassifier]:
    """Return the members of a bundle's second stage with their weights, in eval mode; none where it has no such stage.

    Parameters
    ----------
    bundle : Bundle
        Card and folder of the model.

    Returns
    -------
    list of CandidateClassifier
        On the CPU, in fp32, in the order of the file.

    Raises
    ------
    ModelError
        If the weights do not fit, or are not all numbers.
    """
    stage = bundle.card.candidate_stage
    if stage is None:
        return []
    all_of_them = _filled(
        lambda: nn.ModuleList(new_classifier(kind, stage.width) for kind in stage.networks),
        bundle.classifier_weights,
    )
    return [m for m in all_of_them if isinstance(m, CandidateClassifier)]


def load_network(bundle: Bundle) -> Generator:
    """Return a bundle's generator with its weights, in eval mode.

    Parameters
    ----------
    bundle : Bundle
        Card and folder of the model.

    Returns
    -------
    Generator
        On the CPU, in fp32.

    Raises
    ------
    ModelError
        If the weights do not fit the architecture, or are not all numbers.
    """
    card = bundle.card.architecture
    return _filled(lambda: Generator(card.ngf, card.norm, card.antialias), bundle.weights)


def _filled(make: Callable[[], N], path: Path) -> N:
    """Return a network with the weights of a file, in eval mode; nothing is made that these do not fit.

    Raises
    ------
    ModelError
        If the weights do not fit the network that the card describes, or are not all numbers.
    """
    state = {k: v.float() for k, v in _tensors(path).items()}
    with torch.device("meta"):  # a card can claim a width that no memory holds
        wanted = {k: v.shape for k, v in make().state_dict().items()}
    if _shapes_needed(wanted) != _shapes_needed({k: v.shape for k, v in state.items()}):
        raise ModelError(f"The weights {path} do not fit the architecture on their card.")
    if not all(bool(torch.isfinite(v).all()) for v in state.values()):
        raise ModelError(
            f"The weights {path} are not all numbers: part of the network would be dead. Export the model again."
        )
    network = make()
    network.load_state_dict(state, strict=False)
    return network.eval()


def _shapes_needed(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Return shapes without those of counters, which training alone needs."""
    return {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}
