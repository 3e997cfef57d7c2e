"""The paper's baseline: a U-Net of four levels (Ronneberger et al., MICCAI 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _block(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """U-Net with three output channels, before tanh as the generator's.

    Parameters
    ----------
    width : int
        Channels of the first level; each of four levels doubles them.
    """

    LEVELS = 4

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**k for k in range(self.LEVELS + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3, *widths[:-2]], widths[:-1], strict=True))
        self.middle = _block(widths[-2], widths[-1])
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, 2) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.up = nn.ModuleList(_block(2 * w, w) for w in widths[-2::-1])
        self.last = nn.Conv2d(width, 3, 1)
        self.pool = nn.MaxPool2d(2)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits, ``(n, 3, h, w)``; both sides of the input are multiples of 16.

        Parameters
        ----------
        x : Tensor, shape (n, 3, h, w)
            RGB in [-1, 1].

        Returns
        -------
        Tensor, shape (n, 3, h, w)
            Before tanh.
        """
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
            x = self.pool(x)
        x = self.middle(x)
        for rise, level, skip in zip(self.rise, self.up, reversed(kept), strict=True):
            x = level(torch.cat([rise(x), skip], dim=1))
        out: Tensor = self.last(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the label map in -1 to 1.

        Parameters
        ----------
        x : Tensor, shape (n, 3, h, w)
            RGB in [-1, 1].

        Returns
        -------
        Tensor, shape (n, 3, h, w)
            Nucleus, mitosis, boundary.
        """
        return torch.tanh(self.logits(x))
