"""The second stage's networks, which judge each candidate of the first stage from a crop around its centre."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsi_minugan.minugan.card import ClassifierKind
from wsi_minugan.minugan.scoring import Cast, fold_norms

# EfficientNet-Lite0. Of its stages: blocks, kernel, stride of the first block, expansion, channels.
_FEATURES, _STEM = 1280, 32
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
_EPSILON, _MOMENTUM = 1e-3, 0.01


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


def _convolution(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that pads as TensorFlow does, and its norm; the sides are multiples of the stride."""
    before = (kernel - stride) // 2
    after = kernel - stride - before
    # A padding of its own copies the whole image, so it is there only where both ends differ.
    own, padding = (before, nn.Identity()) if before == after else (0, nn.ZeroPad2d((before, after) * 2))
    return [
        *([padding] if kernel > 1 else []),
        nn.Conv2d(cin, cout, kernel, stride, own, groups=groups, bias=False),
        nn.BatchNorm2d(cout, _EPSILON, _MOMENTUM),
    ]


class _InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; with a shortcut where sizes stay (Sandler et al. 2018)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        widen = [*_convolution(cin, wide, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen,
            *_convolution(wide, wide, kernel, stride, groups=wide),
            nn.ReLU6(inplace=True),
            *_convolution(wide, cout, 1),
        )
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(n, cout, h / stride, w / stride)`` of ``(n, cin, h, w)``."""
        out: Tensor = self.body(x)
        return out + x if self.shortcut else out


def _blocks() -> Iterator[_InvertedResidual]:
    cin = _STEM
    for number, kernel, stride, expansion, cout in _STAGES:
        for k in range(number):
            yield _InvertedResidual(cin, cout, kernel, stride if k == 0 else 1, expansion)
            cin = cout


class EfficientNetLite0(nn.Sequential):
    """EfficientNet-Lite0 without its last layer: features of images, ``(n, 1280, h / 32, w / 32)`` of ``(n, 3, h, w)``.

    Tan and Le 2019, <https://arxiv.org/abs/1905.11946>; the Lite form has neither squeeze-and-excitation nor swish. Written from
    the paper and the published table of stages. Values are in [-1, 1], h and w multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__(
            *_convolution(3, _STEM, 3, 2),
            nn.ReLU6(inplace=True),
            *_blocks(),
            *_convolution(_STAGES[-1][-1], _FEATURES, 1),
            nn.ReLU6(inplace=True),
        )


class CandidateClassifier(nn.Module):
    """Crops in, logits of "this is a mitotic figure" out.

    Parameters
    ----------
    features : Sequential
        From pictures to features, ``(n, channels, h, w)``.
    pooled : int
        How many numbers are made of them for the last layer.
    """

    def __init__(self, features: nn.Sequential, pooled: int) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(pooled, 1)

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
        logits: Tensor = self.head(self.dropout(self._pooled(x)))[:, 0]
        return logits

    def _pooled(self, x: Tensor) -> Tensor:
        """Return what the last layer sees of crops: the mean and the highest value of each feature."""
        f = self.features(x).float()
        return torch.cat([f.mean((2, 3)), f.amax((2, 3))], 1)


class ResidualClassifier(CandidateClassifier):
    """A small residual network.

    Parameters
    ----------
    width : int
        Channels after the first reduction; the later stages have two, four and six times as many.
    """

    def __init__(self, width: int = 32) -> None:
        w = width
        features = nn.Sequential(
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
        super().__init__(features, 12 * w)


class EfficientClassifier(CandidateClassifier):
    """EfficientNet-Lite0, which can begin with weights learnt from photographs; it sees the crop at twice its size."""

    def __init__(self) -> None:
        super().__init__(EfficientNetLite0(), _FEATURES)

    def _pooled(self, x: Tensor) -> Tensor:
        """Return what the last layer sees of crops: the mean of each feature."""
        large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        f: Tensor = self.features(large).float()
        return f.mean((2, 3))


def new_classifier(kind: ClassifierKind, width: int) -> CandidateClassifier:
    """Return a classifier with random weights.

    Parameters
    ----------
    kind : {"residual", "efficientnet-lite0"}
        Its architecture.
    width : int
        Of a residual network.

    Returns
    -------
    CandidateClassifier
        On the CPU, or where torch makes tensors now.
    """
    return ResidualClassifier(width) if kind == "residual" else EfficientClassifier()


def kind_of(names: Container[str]) -> ClassifierKind:
    """Return the architecture that weights are of.

    Parameters
    ----------
    names : container of str
        Of its tensors.

    Returns
    -------
    {"residual", "efficientnet-lite0"}
        Told by the first convolution's place.
    """
    return "residual" if "features.0.weight" in names else "efficientnet-lite0"


def folded(network: CandidateClassifier, dtype: torch.dtype = torch.float32) -> CandidateClassifier:
    """Return a classifier whose norms are part of its convolutions, which is faster in use.

    Parameters
    ----------
    network : CandidateClassifier
        In eval mode; it stays as it is.
    dtype : torch.dtype
        Arithmetic, but for the first layer, which sees the pixels, and for the last, whose sum decides.

    Returns
    -------
    CandidateClassifier
        A copy that gives the same logits but for rounding, and cannot be trained.
    """
    out = copy.deepcopy(network)
    fold_norms(out)
    first = next(k for k, layer in enumerate(out.features) if isinstance(layer, nn.Conv2d))
    out.features.to(dtype)
    out.features[first].float()
    out.features.insert(first + 1, Cast(dtype))
    return out
