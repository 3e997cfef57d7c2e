"""The second stage: a small residual network that judges each candidate of the first, from a crop around its centre."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FIELD_PX = 80
"""Side of what the classifier sees around a candidate, at the model's resolution: 20 um."""
INPUT_PX = 64
"""Side of the crop that it is given: the field, reduced to 0.3125 um/px."""


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, 1, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(), nn.Conv2d(cin, cout, 1)
            )
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(n, cout, h / stride, w / stride)`` of ``(n, cin, h, w)``."""
        out: Tensor = self.last(self.body(x) + self.shortcut(x))
        return out


class CandidateClassifier(nn.Module):
    """Crops in, logits of "this is a mitotic figure" out.

    Parameters
    ----------
    width : int
        Channels after the first reduction; the later stages have two, four and six times as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            nn.Conv2d(3, w // 2, 3, 1, 1, bias=False),
            nn.BatchNorm2d(w // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(w // 2, w, 3, 2, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(inplace=True),
            _Block(w, w, 1),
            _Block(w, 2 * w, 2),
            _Block(2 * w, 2 * w, 1),
            _Block(2 * w, 4 * w, 2),
            _Block(4 * w, 4 * w, 1),
            _Block(4 * w, 6 * w, 2),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(12 * w, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n,)`` of RGB ``(n, 3, 64, 64)`` scaled to [-1, 1].

        Parameters
        ----------
        x : Tensor of float, shape (n, 3, 64, 64)
            RGB crops in [-1, 1] at 0.3125 um/px, a candidate in the middle of each.

        Returns
        -------
        Tensor, shape (n,)
            Above 0: rather a mitotic figure than not.
        """
        f = self.features(x)
        pooled = torch.cat([f.mean((2, 3)), f.amax((2, 3))], 1)
        logits: Tensor = self.head(self.dropout(pooled))[:, 0]
        return logits


def crop_around(image: NDArray[np.uint8], centre_px: tuple[float, float]) -> NDArray[np.uint8]:
    """Return what the classifier sees around a place of an image.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution. It is mirrored beyond its border.
    centre_px : tuple of float
        x, y; the centre of pixel 0 is at 0.5.

    Returns
    -------
    ndarray of uint8, shape (64, 64, 3)
        RGB at 0.3125 um/px.
    """
    scale = INPUT_PX / FIELD_PX
    # OpenCV counts from the middles of pixels.
    shift = [INPUT_PX / 2 - 0.5 - scale * (v - 0.5) for v in centre_px]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    out = cv2.warpAffine(
        image, matrix, (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(out, np.uint8)
