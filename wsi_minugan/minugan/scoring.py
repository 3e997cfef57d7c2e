"""The generator as it runs in use: norms folded into convolutions, scores as bytes; and the map of stains before it.

None of this changes what is computed, only how: every sum has the same terms.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsi_minugan.config import SQUARE_PX
from wsi_minugan.minugan.generator import Generator
from wsi_minugan.minugan.stain import TISSUE_DENSITY, StainMap, optical_density, rgb_of

_STEPS = 4096
"""Steps of the table from optical density to grey levels, for a density of 1: much finer than a grey level of bright pixels."""


class ScoringNetwork(nn.Module):
    """Patches of bytes in, scores of bytes out.

    Parameters
    ----------
    network : Generator
        In eval mode, and not used elsewhere: it is changed in place.
    dtype : torch.dtype
        Arithmetic, but for halving the image and the first layer on it: pixels lose in bf16, and all that follows with them.
    """

    def __init__(self, network: Generator, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        fold_norms(network)
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True
        last = network.back[-1]
        if not isinstance(last, nn.Conv2d):
            raise TypeError("the generator ends in a convolution")
        self._network = network
        network.back[-1] = by_squares(last)
        network.to(dtype)
        network.halve = _Halving()  # type: ignore[assignment]  # takes its place
        network.front.insert(0, Cast(dtype))
        network.coarse[1].float()
        network.coarse.insert(2, Cast(dtype))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return 255 times the scores of RGB uint8 ``(n, h, w, 3)``, uint8 ``(n, h / 2, w / 2, 12)``; see `predictor.from_squares`.

        Parameters
        ----------
        pixels : Tensor of uint8, shape (n, h, w, 3)
            RGB at the model's resolution; h and w are even.

        Returns
        -------
        Tensor of uint8, shape (n, h / 2, w / 2, 12)
            Squares of 2x2 pixels in the channels.
        """
        x = network_input(pixels)
        # (tanh(v) + 1) / 2, in half of tanh's time.
        squares = torch.sigmoid(self._network.logits(x).float().mul_(2.0))
        return squares.mul_(255.0).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def network_input(pixels: Tensor) -> Tensor:
    """Return pixels as the networks take them.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (n, h, w, 3)
        RGB.

    Returns
    -------
    Tensor of float32, shape (n, 3, h, w)
        In [-1, 1], channels-last in memory, as the permuted array already is.
    """
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class Cast(nn.Module):
    """Goes on in another arithmetic.

    Parameters
    ----------
    dtype : torch.dtype
        Of what comes out.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the same numbers, rounded.

        Parameters
        ----------
        x : Tensor
            Of any type.

        Returns
        -------
        Tensor
            Of the same shape.
        """
        return x.to(self._dtype)


class _Halving(nn.Module):
    """The generator's average pooling, as a convolution: in a fifth of the time where channels are last."""

    _weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_weight", torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` at half resolution."""
        out = F.conv2d(x, self._weight, stride=2, padding=1).mul_(1 / 9)
        # Padding does not count: the first row and column are means of two of the three.
        out[:, :, 0] *= 1.5
        out[:, :, :, 0] *= 1.5
        return out


def by_squares(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution that yields squares of 2x2 pixels as channels; `predictor.from_squares` puts them in place.

    A processor computes 16 channels at once, so three waste most of its work: with twelve, of kernels one pixel larger at
    twice the stride, the last layer takes 40 % of the time. The added weights are zeros.

    Parameters
    ----------
    conv : Conv2d
        Stride 1, no padding; outputs an even height and width.

    Returns
    -------
    Conv2d
        Stride 2; four times the output channels.
    """
    weight = conv.weight.detach()
    channels, inputs, h, w = weight.shape
    wide = weight.new_zeros(channels, SQUARE_PX, SQUARE_PX, inputs, h + 1, w + 1)
    for y in range(SQUARE_PX):
        for x in range(SQUARE_PX):
            wide[:, y, x, :, y : y + h, x : x + w] = weight
    out = nn.Conv2d(inputs, channels * SQUARE_PX**2, (h + 1, w + 1), SQUARE_PX, bias=conv.bias is not None)
    out.weight = nn.Parameter(wide.flatten(0, 2), requires_grad=False)
    if conv.bias is not None:
        bias = conv.bias.detach().repeat_interleave(SQUARE_PX**2)
        out.bias = nn.Parameter(bias, requires_grad=False)
    return out


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place; the network must be in eval mode.

    Parameters
    ----------
    network : Module
        It is changed.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for k in range(len(module) - 1):
            conv, norm = module[k], module[k + 1]
            if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                module[k] = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
                module[k + 1] = nn.Identity()


@lru_cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the optical density of each grey level, and the grey level of each step of density."""
    density = optical_density(np.arange(256, dtype=np.float32))
    steps = np.arange(round(float(density.max()) * _STEPS) + 1, dtype=np.float32) / np.float32(_STEPS)
    levels = np.clip(np.rint(rgb_of(steps)), 0, 255).astype(np.uint8)
    return torch.from_numpy(density).to(device), torch.from_numpy(levels).to(device)


@torch.inference_mode()
def restained(pixels: Tensor, how: StainMap) -> Tensor:
    """Return pixels with their stain moved, on the device that they are on.

    The map fades out below tissue's density: white stays white, and grey glass takes a part of it.

    A pixel's result depends on that pixel alone. Logarithms and powers come from tables, and the rest are single sums and
    products, so every device gives the same bytes.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (..., 3)
        RGB.
    how : StainMap
        The map of optical densities.

    Returns
    -------
    Tensor of uint8, shape (..., 3)
        RGB.
    """
    of_level, levels = _tables(pixels.device)
    # Colour by colour: three numbers in a row are slow for a processor that computes eight at once.
    red, green, blue = pixels.unbind(-1)
    density = [of_level.index_select(0, p.reshape(-1).int()) for p in (red, green, blue)]
    # By degrees, so that no line is drawn where the tissue ends.
    share = (density[0] + density[1]).add_(density[2]).div_(TISSUE_DENSITY).clamp_(0, 1)
    out = torch.empty_like(pixels)
    for k, own in enumerate(density):
        moved = density[0] * how.matrix[0][k]
        for other, row in zip(density[1:], how.matrix[1:], strict=True):
            moved.add_(other * row[k])
        mixed = moved.add_(how.offset[k]).sub_(own).mul_(share).add_(own)
        step = mixed.mul_(_STEPS).round_().clamp_(0, len(levels) - 1).int()
        out[..., k] = levels.index_select(0, step).view(red.shape)
    return out
