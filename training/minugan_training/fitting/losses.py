"""The losses: focal adversarial, feature matching (the paper), and a supervised focal term with soft Dice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minugan_training.data.labels import IGNORE
from minugan_training.settings import Losses
from wsi_minugan.config import EDGE_PX

CHANNEL_WEIGHTS = (1.5, 6.0, 1.5)
DICE_WEIGHTS = (0.5, 1.0, 0.3)
_DICE_SMOOTH = 50.0
_SPOT_PX = 9
"""Side of the squares over which logits are averaged: 2.2 um, well within a mitosis."""
_SPOT_PLACES = 64
"""Places of such squares that make a spot: some 4 um across together."""
_NOTHING = 0.5 / _SPOT_PX**2
"""Less than one pixel of a square."""
_CORE = 0.9
"""Share of a square that a mitosis must fill to be of its core."""


def focal_discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], gamma: float) -> Tensor:
    """Return the loss that a discriminator minimises, summed over scales.

    The paper's objective is E[(1 - D)^g log D] for real pairs and E[D^g log(1 - D)] for generated ones (p. 4); the
    discriminator maximises it, so its loss is the negative.

    Parameters
    ----------
    real, fake : sequence of Tensor
        Logits of the PatchGAN's last layer at each scale; D is their sigmoid.
    gamma : float
        Focal exponent; 0 is the plain cross-entropy.

    Returns
    -------
    Tensor, shape ()
        The loss.
    """
    total = real[0].new_zeros(())
    for r, f in zip(real, fake, strict=True):
        total = (
            total
            - (_sigmoid_power(-r, gamma) * F.logsigmoid(r)).mean()
            - (_sigmoid_power(f, gamma) * F.logsigmoid(-f)).mean()
        )
    return total


def focal_generator_loss(fake: Sequence[Tensor], gamma: float) -> Tensor:
    """Return the generator's adversarial loss, summed over scales: -E[(1 - D)^g log D] of generated pairs (non-saturating).

    Parameters
    ----------
    fake : sequence of Tensor
        Logits of the PatchGAN's last layer at each scale.
    gamma : float
        Focal exponent; 0 is the plain cross-entropy.

    Returns
    -------
    Tensor, shape ()
        The loss.
    """
    total = fake[0].new_zeros(())
    for f in fake:
        total = total - (_sigmoid_power(-f, gamma) * F.logsigmoid(f)).mean()
    return total


def _sigmoid_power(x: Tensor, gamma: float) -> Tensor:
    """Return sigmoid(x) ** gamma with a gradient that stays finite for exponents below 1, where that of a power is not."""
    return torch.exp(gamma * F.logsigmoid(x))


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the L1 distance of the discriminators' inner features, averaged over layers and scales.

    Parameters
    ----------
    real, fake : sequence of sequence of Tensor
        Features of every layer at every scale.

    Returns
    -------
    Tensor, shape ()
        The loss; the real pairs' features get no gradient.
    """
    terms = [
        F.l1_loss(f, r.detach())
        for real_scale, fake_scale in zip(real, fake, strict=True)
        for r, f in zip(real_scale, fake_scale, strict=True)
    ]
    return torch.stack(terms).mean()


def supervised_loss(logits: Tensor, labels: Tensor, weights: Losses) -> Tensor:
    """Return focal cross-entropy and soft Dice over the pixels that are known.

    Parameters
    ----------
    logits : Tensor, shape (n, 3, h, w)
        Before tanh; a score is sigmoid(2 x), that is (tanh(x) + 1) / 2.
    labels : Tensor of uint8, shape (n, 3, h, w)
        0, 1 or IGNORE.
    weights : Losses
        Exponent and weights.

    Returns
    -------
    Tensor, shape ()
        The loss.
    """
    doubled = 2 * logits.float()
    known = (labels != IGNORE).float()
    target = (labels == 1).float()
    score = torch.sigmoid(doubled)
    weight = known.clone()
    weight[:, 1] *= 1 + (weights.positive_weight - 1) * target[:, 1]
    weight[:, 2] *= 1 + (weights.boundary_weight - 1) * target[:, 2]
    # A score's distance from the truth is the score of the other answer.
    wrong = _sigmoid_power(doubled * (1 - 2 * target), weights.focal)
    focal = 0.3 + wrong if weights.focal else torch.ones_like(score)
    entropy = F.binary_cross_entropy_with_logits(doubled, target, reduction="none")
    axes = (0, 2, 3)
    per_channel = (entropy * weight * focal).sum(axes) / known.sum(axes).clamp(min=1)
    total = (per_channel * per_channel.new_tensor(CHANNEL_WEIGHTS)).sum()
    if weights.dice:
        common = (score * target * known).sum(axes)
        both = (score * known).sum(axes) + (target * known).sum(axes)
        lacking = 1 - (2 * common + _DICE_SMOOTH) / (both + _DICE_SMOOTH)
        total = total + (lacking * lacking.new_tensor(DICE_WEIGHTS)).sum()
    return total


def spots_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of whole mitoses and of each patch's most suspicious other spot.

    The loss over pixels mostly speaks of outlines, of which every nucleus has one. This one counts as detection does: each
    patch's mitoses by the mean logit of their cores, and the brightest spot elsewhere, both with one voice a patch.

    Parameters
    ----------
    logits : Tensor, shape (n, 3, h, w)
        Before tanh.
    labels : Tensor of uint8, shape (n, 3, h, w)
        0, 1 or IGNORE.

    Returns
    -------
    Tensor, shape ()
        The loss.
    """
    local = _square_mean(2 * logits[:, 1:2].float())
    truth = labels[:, 1:2]
    with torch.no_grad():
        share = _square_mean((truth == 1).float())
        elsewhere = _square_mean((truth != 0).float()) < _NOTHING
    core = (share >= _CORE).float()
    held = core.sum((1, 2, 3))
    found = F.softplus(-(local * core).sum((1, 2, 3)) / held.clamp(min=1))[held > 0]
    brightest = local.masked_fill(~elsewhere, -torch.inf).flatten(1).topk(_SPOT_PLACES).values
    wrong = F.softplus(brightest[torch.isfinite(brightest).all(1)].mean(1))
    return _mean_or_zero(found) + _mean_or_zero(wrong)


def _square_mean(x: Tensor) -> Tensor:
    """Return the mean over each square; a row and then a column takes a fifth of the time of a square."""
    return F.avg_pool2d(F.avg_pool2d(x, (_SPOT_PX, 1), stride=1), (1, _SPOT_PX), stride=1)


def _mean_or_zero(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())


def consistency_loss(logits: Tensor, offsets_px: Tensor) -> Tensor:
    """Return how far the scores of two views of the same tissue differ, where both see it, less a margin of `EDGE_PX`.

    Each view is drawn towards the other's scores as they are: the Kullback-Leibler divergence of each pixel's scores, whose
    gradient on a logit is the difference of the two scores, however sure both are.

    Parameters
    ----------
    logits : Tensor, shape (2 n, 3, h, w)
        Before tanh; first views, then second views.
    offsets_px : Tensor of int, shape (2 n, 2)
        y, x of each view in its scene.

    Returns
    -------
    Tensor, shape ()
        The loss.
    """
    doubled = 2 * logits.float()
    n, (h, w) = len(logits) // 2, logits.shape[2:]
    weights = doubled.new_tensor(CHANNEL_WEIGHTS)[:, None, None]
    total = doubled.new_zeros(())
    for first, second, (y, x) in zip(
        doubled[:n], doubled[n:], (offsets_px[n:] - offsets_px[:n]).tolist(), strict=True
    ):
        a = first[:, max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)]
        b = second[:, max(0, -y) : h + min(0, -y), max(0, -x) : w + min(0, -x)]
        inner = (..., slice(EDGE_PX, a.shape[1] - EDGE_PX), slice(EDGE_PX, a.shape[2] - EDGE_PX))
        a, b = a[inner], b[inner]
        total = total + ((_divergence(a, b) + _divergence(b, a)) * weights).sum(0).mean()
    return total / n


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return how far softened scores are from a teacher's (Hinton et al. 2015), over all pixels, labelled or not.

    It is the Kullback-Leibler divergence of each pixel's scores, times the square of the temperature, so that the size of its
    gradient does not depend on the temperature.

    Parameters
    ----------
    logits, teacher : Tensor, shape (n, 3, h, w)
        Before tanh; no gradient goes into the teacher's.
    temperature : float
        What both are divided by.

    Returns
    -------
    Tensor
        A scalar.
    """
    weights = logits.new_tensor(CHANNEL_WEIGHTS)[:, None, None]
    apart = _divergence(2 * logits.float() / temperature, 2 * teacher.float() / temperature)
    return temperature**2 * (apart * weights).sum(1).mean()


def _divergence(x: Tensor, towards: Tensor) -> Tensor:
    """Return KL(sigmoid(towards) || sigmoid(x)) with no gradient into `towards`."""
    fixed = towards.detach()
    target = torch.sigmoid(fixed)
    return F.binary_cross_entropy_with_logits(
        x, target, reduction="none"
    ) - F.binary_cross_entropy_with_logits(fixed, target, reduction="none")


def label_images(labels: Tensor, scores: Tensor) -> Tensor:
    """Return the label map as the discriminator sees it, in -1 to 1; what is unknown is taken from the generator's own scores.

    So no gradient and no advantage comes from places where nobody knows the truth.

    Parameters
    ----------
    labels : Tensor of uint8, shape (n, 3, h, w)
        0, 1 or IGNORE.
    scores : Tensor, shape (n, 3, h, w)
        The generator's output, -1 to 1.

    Returns
    -------
    Tensor, shape (n, 3, h, w)
        Without a gradient.
    """
    truth = (labels == 1).to(scores.dtype) * 2 - 1
    # In the scores' layout: in another, convolutions differ in the last digit, and the L1 distance makes a gradient of that.
    return torch.empty_like(scores).copy_(torch.where(labels == IGNORE, scores.detach(), truth))
