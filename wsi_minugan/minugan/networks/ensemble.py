"""The classifiers of a second stage, as they run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_minugan.minugan.classifier import CandidateClassifier, folded
from wsi_minugan.minugan.second_stage import INPUT_PX

_CROPS_AT_ONCE_ON_GPU = 32


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
    """

    def __init__(
        self,
        members: Sequence[CandidateClassifier],
        refuse_below: float | None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._members = [
            folded(m.eval(), dtype).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for m in members
        ]
        self._refuse_below = refuse_below
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
            x = torch.from_numpy(full).to(self._device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
            looks = mirrored_views(x)
            views = torch.cat(looks).contiguous(memory_format=torch.channels_last)
            mean = member(views).view(len(looks), -1).mean(0)
            out[start : start + len(part)] = mean[: len(part)].cpu().numpy()
        return out


def mirrored_views(x: Tensor) -> list[Tensor]:
    """Return the four mirrored views of crops; the four turned ones besides would add nothing (docs/decisions/0046).

    Parameters
    ----------
    x : Tensor, shape (n, channels, h, w)
        The crops.

    Returns
    -------
    list of Tensor
        Four, each of the same shape.
    """
    return [x.flip(axes) for axes in ([], [3], [2], [2, 3])]
