"""The classifiers of a second stage, as they run."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_minugan.minugan.classifier import CandidateClassifier, folded
from wsi_minugan.minugan.scoring import network_input
from wsi_minugan.minugan.second_stage import INPUT_PX
from wsi_minugan.minugan.stain import with_density_times

_CROPS_AT_ONCE_ON_GPU = 32
_MIRRORED: tuple[list[int], ...] = ([], [3], [2], [2, 3])
"""Axes of the four views."""


class ClassifierEnsemble:
    """Classifiers whose mean logit counts, over all views of a crop.

    Parameters
    ----------
    members : sequence of CandidateClassifier
        They judge one after another: what some refuse, the next do not see. So the quickest comes first.
    refuse_below : float, optional
        Mean logit of the members so far below which a candidate is refused; by default all see all.
    device : torch.device
        Where they run.
    dtype : torch.dtype
        Their arithmetic; see `classifier.folded`.
    densities : sequence of float, optional
        Factor of the optical densities in each view; see `mirrored_views`.
    """

    def __init__(
        self,
        members: Sequence[CandidateClassifier],
        refuse_below: float | None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        densities: Sequence[float] | None = None,
    ) -> None:
        self._members = [
            folded(m.eval(), dtype).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for m in members
        ]
        self._refuse_below = refuse_below
        self._densities = densities
        self._device = device
        # On a CPU one crop at a time: its arithmetic then is the same whatever its companions.
        self._at_once = 1 if device.type == "cpu" else _CROPS_AT_ONCE_ON_GPU

    def logits(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the mean logit of each crop over the members that see it, and over views.

        Parameters
        ----------
        crops : ndarray of uint8, shape (n, 64, 64, 3)
            RGB at 0.3125 um/px, a candidate in the middle of each.

        Returns
        -------
        ndarray of float, shape (n,)
            Above 0: rather a mitotic figure than not.
        """
        out, left = np.zeros(len(crops)), np.arange(len(crops))
        for k, member in enumerate(self._members):
            out[left] = (k * out[left] + self._judged(member, crops[left])) / (k + 1)
            if self._refuse_below is not None:
                left = left[out[left] >= self._refuse_below]
        return out

    @torch.inference_mode()
    def _judged(self, member: CandidateClassifier, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return one member's mean logit of each crop over its views."""
        out = np.zeros(len(crops))
        for start in range(0, len(crops), self._at_once):
            part = crops[start : start + self._at_once]
            full = np.zeros((self._at_once, INPUT_PX, INPUT_PX, 3), np.uint8)
            full[: len(part)] = part
            looks = mirrored_views(torch.from_numpy(full).to(self._device), self._densities)
            views = torch.cat(looks).contiguous(memory_format=torch.channels_last)
            mean = member(views).view(len(looks), -1).mean(0)
            out[start : start + len(part)] = mean[: len(part)].cpu().numpy()
        return out


def mirrored_views(crops: Tensor, densities: Sequence[float] | None = None) -> list[Tensor]:
    """Return crops as a classifier sees them: mirrored in four ways; the four turned ones would add nothing (docs/decisions/0046).

    Parameters
    ----------
    crops : Tensor of uint8, shape (n, h, w, 3)
        RGB.
    densities : sequence of float, optional
        Factor of the optical densities in each of the four views: a paler stain, the crop's own, darker ones. By default all views
        have the crop's own.

    Returns
    -------
    list of Tensor of float32
        Four, each of shape (n, 3, h, w), in [-1, 1].
    """
    if densities is None:
        plain = network_input(crops)
        return [plain.flip(axes) for axes in _MIRRORED]
    levels = crops.permute(0, 3, 1, 2).long()
    stained = [_inputs_at(f, crops.device)[levels] for f in densities]
    return [view.flip(axes) for view, axes in zip(stained, _MIRRORED, strict=True)]


@functools.lru_cache
def _inputs_at(density: float, device: torch.device) -> Tensor:
    """Return what the first layer gets of each grey level, 256 values, where the optical density is multiplied by a factor.

    A table, so that each device gives the same values.
    """
    changed = with_density_times(np.arange(256, dtype=np.float64), density)
    return torch.from_numpy((changed / 127.5 - 1).astype(np.float32)).to(device)
