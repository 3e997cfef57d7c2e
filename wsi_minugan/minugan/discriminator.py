"""The discriminators: PatchGANs over image and label map, at full, half and quarter resolution (Razavi et al. 2022, p. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_KERNEL, _PADDING = 4, 2
_MAX_WIDTH = 512


class PatchDiscriminator(nn.Module):
    """One PatchGAN (Isola et al. 2017): convolutions of 4x4, three of stride 2, that judge overlapping patches of about 70 px.

    Parameters
    ----------
    in_channels : int
        Channels of image and label map together.
    ndf : int
        Width of the first layer.
    """

    def __init__(self, in_channels: int = 6, ndf: int = 64) -> None:
        super().__init__()
        widths = [ndf, min(2 * ndf, _MAX_WIDTH), min(4 * ndf, _MAX_WIDTH), min(8 * ndf, _MAX_WIDTH)]
        strides = (2, 2, 2, 1)
        layers: list[nn.Module] = []
        before = in_channels
        for k, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            parts: list[nn.Module] = [nn.Conv2d(before, width, _KERNEL, stride, _PADDING)]
            if k:
                parts.append(nn.InstanceNorm2d(width))
            layers.append(nn.Sequential(*parts, nn.LeakyReLU(0.2)))
            before = width
        layers.append(nn.Conv2d(before, 1, _KERNEL, 1, _PADDING))
        self.layers = nn.ModuleList(layers)

    def forward(self, pair: Tensor) -> list[Tensor]:
        """Return the features of every layer; the last are the logits.

        Parameters
        ----------
        pair : Tensor, shape (n, c, h, w)
            An image and a label map, one above the other in the channels.

        Returns
        -------
        list of Tensor
            One for each layer.
        """
        out = []
        for layer in self.layers:
            pair = layer(pair)
            out.append(pair)
        return out


class MultiscaleDiscriminator(nn.Module):
    """Two or three PatchGANs on ever smaller copies of the pair, as in pix2pixHD (Wang et al. 2018).

    Parameters
    ----------
    scales : int
        Number of discriminators.
    ndf : int
        Width of each one's first layer.
    """

    def __init__(self, scales: int = 2, ndf: int = 64) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PatchDiscriminator(6, ndf) for _ in range(scales))

    def forward(self, image: Tensor, label_map: Tensor) -> list[list[Tensor]]:
        """Return the features of every layer at every scale, finest first.

        Parameters
        ----------
        image : Tensor, shape (n, 3, h, w)
            RGB in [-1, 1].
        label_map : Tensor, shape (n, 3, h, w)
            The truth's channels, or the generator's, in [-1, 1].

        Returns
        -------
        list of list of Tensor
            For each scale, what `PatchDiscriminator` returns.
        """
        pair = torch.cat([image, label_map], dim=1)
        out: list[list[Tensor]] = []
        for k, discriminator in enumerate(self.discriminators):
            if k:
                pair = F.avg_pool2d(pair, 3, 2, 1, count_include_pad=False)
            out.append(discriminator(pair))
        return out
