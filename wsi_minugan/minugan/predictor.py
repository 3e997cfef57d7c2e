"""From patches of pixels to scores: the whole model, whoever runs its networks.

A patch's scores depend on its own pixels alone. That also holds for test-time augmentation at patches that may hold a mitosis,
and for the ink in which there is none.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import EDGE_PX, MITOSIS_CHANNEL, OUT_CHANNELS, SQUARE_PX, Precision
from wsi_minugan.minugan.bundle import Bundle
from wsi_minugan.minugan.devices import DeviceType
from wsi_minugan.minugan.ink import ink_in
from wsi_minugan.minugan.second_stage import Patches, SecondStage
from wsi_minugan.minugan.stain import StainMap

_MIRRORED = (np.s_[::-1, :], np.s_[:, ::-1], np.s_[::-1, ::-1])
_LEAST_SCORE = 32
"""Below it no score becomes a mitosis, so that no ink need be looked for."""


class Networks(Protocol):
    """What runs a model's networks: `networks.own.OwnNetworks` here, `networks.shared.SharedNetworks` in a process that several share."""

    @property
    def device_type(self) -> DeviceType:
        """Where they run.

        Returns
        -------
        {"cpu", "cuda"}
            The device.
        """

    @property
    def precision(self) -> Precision:
        """The arithmetic.

        Returns
        -------
        {"fp32", "bf16", "fp16"}
            As settled.
        """

    @property
    def batch_size(self) -> int:
        """Patches per forward pass.

        Returns
        -------
        int
            1 or more.
        """

    def scores(self, patches: Patches, at_once: int | None = None) -> NDArray[np.uint8]:
        """Return the generator's scores in squares of pixels; see `from_squares`.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution; s is a multiple of 32, such as 256.
        at_once : int, optional
            Patches per forward pass, in place of `batch_size`.

        Returns
        -------
        ndarray of uint8, shape (n, s / 2, s / 2, 12)
            255 times the scores.
        """

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

    def restained(self, patches: Patches, stain: StainMap) -> NDArray[np.uint8]:
        """Return patches with their stain moved.

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


class Predictor:
    """A model, ready to score patches.

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
    networks : Networks, optional
        What runs the bundle's networks; by default they are loaded here. Device, precision, batch size and threads then are theirs.

    Attributes
    ----------
    bundle : Bundle
        The model, with its card.
    device : {"cpu", "cuda"}
        Where it runs.
    precision : {"fp32", "bf16", "fp16"}
        Arithmetic that "auto" came to, or that was asked for.
    batch_size, windows_at_once : int
        Patches of 256 px per forward pass, and as many windows on slides as hold them.
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
        networks: Networks | None = None,
    ) -> None:
        if networks is None:
            # Torch takes a second to load and 200 MB: who uses the networks of another process needs none.
            from wsi_minugan.minugan.networks.own import OwnNetworks

            networks = OwnNetworks(bundle, device, precision, batch_size, threads, compiled)
        self.bundle = bundle
        self.device, self.precision = networks.device_type, networks.precision
        self.forwards = 0
        self._networks = networks
        look = bundle.card.test_time_augmentation
        self._augment_from = round(255 * look.least_score) if look else None
        self._shift_px = bundle.card.shifted_view_px
        self._highest = look is not None and look.mitosis == "highest"
        stage = bundle.card.candidate_stage
        self.second_stage = SecondStage(stage, networks.logits) if stage else None

    @property
    def batch_size(self) -> int:
        """Patches of 256 px per forward pass.

        Returns
        -------
        int
            1 or more.
        """
        return self._networks.batch_size

    @property
    def windows_at_once(self) -> int:
        """How many of the squares that the network sees at once on slides go through it together.

        Returns
        -------
        int
            As many as hold `batch_size` patches of 256 px.
        """
        return max(1, self.batch_size // self.bundle.card.patches_across**2)

    def predict(self, patches: Patches, stain: StainMap | None = None) -> NDArray[np.uint8]:
        """Score patches by the whole model: generator, test-time augmentation and second stage, as its card has them.

        Mitosis scores are 0 where `ink_in` finds marker ink.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution; s is a multiple of 32, such as 256.
        stain : StainMap, optional
            What is done to their stain first, for both stages; nothing by default, whatever the card says.

        Returns
        -------
        ndarray of uint8, shape (n, 3, s, s)
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

    def restained(self, patches: Patches, stain: StainMap) -> NDArray[np.uint8]:
        """Return patches as the network sees them where the stain is moved; the map is computed on the device.

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
        return self._networks.restained(patches, stain)

    def first_stage(self, patches: Patches) -> NDArray[np.uint8]:
        """Score patches by the generator, without the second stage; with shifted views and test-time augmentation as its card has them.

        Parameters
        ----------
        patches : n ndarrays of uint8, shape (s, s, 3), or one of all
            RGB at the model's resolution; s is a multiple of 32, such as 256.

        Returns
        -------
        ndarray of uint8, shape (n, 3, s, s)
            255 times the score of nucleus, mitosis, boundary.
        """
        out = self._scores_of(patches, None)
        doubtful = self._doubtful(out)
        # On a CPU a batch of one patch's views takes no longer a patch, and is never filled up in vain.
        at_once = len(_MIRRORED) if self.device == "cpu" else None
        if not doubtful:
            return out
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

    def _scores_of(self, patches: Patches, at_once: int | None) -> NDArray[np.uint8]:
        """Return the generator's scores, in batches of `at_once` or else of `batch_size`; of two views the mean, where the card has two."""
        self.forwards += len(patches)
        out = from_squares(self._networks.scores(patches, at_once))
        if px := self._shift_px:
            self.forwards += len(patches)
            moved = from_squares(self._networks.scores([_moved(p, px) for p in patches], at_once))
            here, there = out[..., px:, px:], moved[..., :-px, :-px]
            # The mean, rounded up, without a ninth bit.
            out[..., px:, px:] = (here | there) - ((here ^ there) >> 1)
        return out


def _moved(patch: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """Return what of a patch lies `px` further down and to the right, mirrored beyond its border."""
    return np.pad(patch[px:, px:], ((0, px), (0, px), (0, 0)), "reflect")


def from_squares(squares: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the scores ``(n, 3, 2 h, 2 w)`` that lie in squares ``(n, h, w, 12)``.

    Parameters
    ----------
    squares : ndarray of uint8, shape (n, h, w, 12)
        What `scoring.ScoringNetwork` returns.

    Returns
    -------
    ndarray of uint8, shape (n, 3, 2 h, 2 w)
        The scores in their places.
    """
    n, h, w, _ = squares.shape
    out = np.empty((n, OUT_CHANNELS, h, SQUARE_PX, w, SQUARE_PX), np.uint8)
    # Twelve strided copies take a fifth of the time of one transposition.
    for k, (channel, y, x) in enumerate(np.ndindex(OUT_CHANNELS, SQUARE_PX, SQUARE_PX)):
        out[:, channel, :, y, :, x] = squares[..., k]
    return out.reshape(n, OUT_CHANNELS, h * SQUARE_PX, w * SQUARE_PX)
