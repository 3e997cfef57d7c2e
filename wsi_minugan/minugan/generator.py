"""MiNuGAN's generator, coarse to fine (paper, Methods and Fig. 2).

A global network works at half resolution; its last features are added to those of a local front at full
resolution, and a local back turns the sum into the three label channels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_minugan.config import OUT_CHANNELS, Antialias

Norm = Literal["instance", "batch"]

GLOBAL_DOWNSAMPLINGS = 4
GLOBAL_BLOCKS = 9
LOCAL_BLOCKS = 3


def _norm(kind: Norm) -> Callable[[int], nn.Module]:
    if kind == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.InstanceNorm2d(channels, affine=False)


def _conv_in(cin: int, cout: int, norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(cin, cout, 7), norm(cout), nn.ReLU()]


class BlurredConv2d(nn.Conv2d):
    """A convolution with a stride whose input is blurred first, so that less depends on where the grid lies (Zhang 2019).

    The blur is a binomial kernel with mirrored edges. It has no parameters: the weights' names and shapes are those of a
    plain convolution.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding : int
        As of `torch.nn.Conv2d`.
    blur_px : {3, 5, 7}
        Side of the kernel: the wider, the less depends on the grid, and the less sharp are features.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        blur_px: int = 3,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self._line = [math.comb(blur_px - 1, k) / 2 ** (blur_px - 1) for k in range(blur_px)]

    def forward(self, input: Tensor) -> Tensor:
        """Return features ``(n, cout, h / stride, w / stride)`` of ``(n, cin, h, w)``.

        Parameters
        ----------
        input : Tensor of float, shape (n, cin, h, w)
            Features of the layer before.

        Returns
        -------
        Tensor, shape (n, cout, h / stride, w / stride)
            As `torch.nn.Conv2d` gives of the blurred input.
        """
        channels = input.shape[1]
        line, side = input.new_tensor(self._line), len(self._line)
        kernel = (line[:, None] * line).expand(channels, 1, side, side)
        blurred = F.conv2d(F.pad(input, (side // 2,) * 4, mode="reflect"), kernel, groups=channels)
        return super().forward(blurred)


def _down(cin: int, cout: int, norm: Callable[[int], nn.Module], antialias: Antialias) -> list[nn.Module]:
    if not antialias:
        return [nn.Conv2d(cin, cout, 3, stride=2, padding=1), norm(cout), nn.ReLU()]
    blur_px = 3 if antialias is True else antialias
    return [BlurredConv2d(cin, cout, 3, stride=2, padding=1, blur_px=blur_px), norm(cout), nn.ReLU()]


def _up(cin: int, cout: int, norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    return [nn.ConvTranspose2d(cin, cout, 3, stride=2, padding=1, output_padding=1), norm(cout), nn.ReLU()]


class ResidualBlock(nn.Module):
    """Two reflect-padded 3x3 convolutions and the identity (He et al. 2016).

    Parameters
    ----------
    channels : int
        Channels in and out.
    norm : callable
        Makes a normalisation layer for a number of channels.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm(channels),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus its residual; shape ``(n, channels, h, w)`` in and out.

        Parameters
        ----------
        x : Tensor of float, shape (n, channels, h, w)
            Features of the layer before.

        Returns
        -------
        Tensor, shape (n, channels, h, w)
            The sum.
        """
        out: Tensor = x + self.body(x)
        return out


def _global_network(ngf: int, norm: Callable[[int], nn.Module], antialias: Antialias) -> nn.Sequential:
    width = 2 * ngf
    layers = _conv_in(3, width, norm)
    for _ in range(GLOBAL_DOWNSAMPLINGS):
        layers += _down(width, 2 * width, norm, antialias)
        width *= 2
    layers += [ResidualBlock(width, norm) for _ in range(GLOBAL_BLOCKS)]
    for _ in range(GLOBAL_DOWNSAMPLINGS):
        layers += _up(width, width // 2, norm)
        width //= 2
    return nn.Sequential(*layers)


class Generator(nn.Module):
    """Network from H&E patches to label channels: pix2pixHD's generator (Wang et al. 2018), as MiNuGAN has it (Razavi et al. 2022).

    Parameters
    ----------
    ngf : int
        Width: channels of the first full-resolution convolution. 32 is the paper's, 8 the CPU's.
    norm : {"instance", "batch"}
        Instance normalisation without affine parameters (the paper's), or batch normalisation, whose statistics
        are fixed after training and make a patch's result independent of what else it shows.
    antialias : bool, 5 or 7
        Blur before each convolution with a stride, of three px or of so many. The paper's form has none.
    """

    def __init__(self, ngf: int = 32, norm: Norm = "instance", antialias: Antialias = False) -> None:
        super().__init__()
        make = _norm(norm)
        # The names' order is the state dict's order: global network, local front, local back.
        self.coarse = _global_network(ngf, make, antialias)
        self.front = nn.Sequential(*_conv_in(3, ngf, make), *_down(ngf, 2 * ngf, make, antialias))
        self.back = nn.Sequential(
            *(ResidualBlock(2 * ngf, make) for _ in range(LOCAL_BLOCKS)),
            *_up(2 * ngf, ngf, make),
            nn.ReflectionPad2d(3),
            nn.Conv2d(ngf, OUT_CHANNELS, 7),
        )
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def logits(self, x: Tensor) -> Tensor:
        """Return the label channels before tanh.

        Parameters
        ----------
        x : Tensor
            Shape ``(n, 3, h, w)``, float, RGB scaled to [-1, 1]; h and w are multiples of 32.

        Returns
        -------
        Tensor
            Shape ``(n, 3, h, w)``: nucleus, mitosis, boundary.
        """
        out: Tensor = self.back(self.front(x) + self.coarse(self.halve(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the label channels in [-1, 1]; see `logits` for shapes.

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


def load_ordered(generator: Generator, state: OrderedDict[str, Tensor]) -> None:
    """Load weights by order and shape, whatever their names.

    Parameters
    ----------
    generator : Generator
        What receives the weights.
    state : OrderedDict of str to Tensor
        As many tensors, of the same shapes in the same order.

    Raises
    ------
    ValueError
        If the count or a shape differs.
    """
    own = generator.state_dict()
    shapes = [tuple(t.shape) for t in own.values()]
    if shapes != [tuple(t.shape) for t in state.values()]:
        raise ValueError("The state dict's shapes, in order, are not the generator's.")
    generator.load_state_dict(dict(zip(own, state.values(), strict=True)))
