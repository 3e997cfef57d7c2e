"""Losses against hand calculations, and gradients into every discriminator."""

import math

import pytest
import torch
from minugan_training.data.labels import IGNORE
from minugan_training.fitting.losses import (
    consistency_loss,
    feature_matching_loss,
    focal_discriminator_loss,
    focal_generator_loss,
    label_images,
    spots_loss,
    supervised_loss,
)
from minugan_training.fitting.unet import UNet
from minugan_training.settings import Losses

from wsi_minugan.config import EDGE_PX
from wsi_minugan.minugan.discriminator import MultiscaleDiscriminator


def logit(p: float) -> torch.Tensor:
    return torch.tensor([[math.log(p / (1 - p))]])


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0, 2.0, 5.0])
def test_the_focal_adversarial_loss_is_the_papers(gamma: float) -> None:
    real, fake = 0.8, 0.3
    expected = -((1 - real) ** gamma * math.log(real)) - fake**gamma * math.log(1 - fake)
    assert focal_discriminator_loss([logit(real)], [logit(fake)], gamma).item() == pytest.approx(
        expected, rel=1e-5
    )
    generator = -((1 - fake) ** gamma * math.log(fake))
    assert focal_generator_loss([logit(fake), logit(fake)], gamma).item() == pytest.approx(
        2 * generator, rel=1e-5
    )


def test_feature_matching_is_the_mean_distance_and_leaves_the_real_side_alone() -> None:
    real = [[torch.ones(2, 2, requires_grad=True)], [torch.zeros(3)]]
    fake = [[torch.full((2, 2), 3.0, requires_grad=True)], [torch.ones(3, requires_grad=True)]]
    loss = feature_matching_loss(real, fake)
    assert loss.item() == pytest.approx((2 + 1) / 2)
    loss.backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_gradients_flow_into_each_discriminator(scales: int) -> None:
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(scales, 4)
    image, label = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)
    on_real, on_fake = discriminator(image, label), discriminator(image, -label)
    assert len(on_real) == scales
    focal_discriminator_loss([s[-1] for s in on_real], [s[-1] for s in on_fake], 2.0).backward()
    for one in discriminator.discriminators:
        assert all(
            p.grad is not None and p.grad.abs().sum() > 0 for n, p in one.named_parameters() if "weight" in n
        )


def test_unknown_pixels_have_no_gradient() -> None:
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    labels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    labels[..., :4] = IGNORE
    supervised_loss(logits, labels, Losses(supervised=1.0)).backward()
    assert (logits.grad[..., :4] == 0).all()
    assert (logits.grad[..., 4:] != 0).all()


def test_the_plain_supervised_loss_by_hand() -> None:
    logits, labels = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4, dtype=torch.uint8)
    weights = Losses(supervised=1.0, focal=0.0, dice=False, positive_weight=2.0)
    assert supervised_loss(logits, labels, weights).item() == pytest.approx(
        math.log(2) * (1.5 + 6 * 2 + 1.5), rel=1e-5
    )


@pytest.mark.parametrize("focal", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_the_supervised_gradient_is_a_number_for_every_exponent_however_sure_the_network_is(
    focal: float,
) -> None:
    logits = torch.tensor([-500.0, -30.0, 0.0, 30.0, 500.0]).expand(1, 3, 2, 5).clone().requires_grad_()
    labels = torch.zeros(1, 3, 2, 5, dtype=torch.uint8)
    labels[:, :, 1] = 1
    loss = supervised_loss(logits, labels, Losses(supervised=1.0, focal=focal))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_focal_term_by_hand() -> None:
    logits, labels = torch.full((1, 3, 1, 1), 0.5), torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    score = 1 / (1 + math.exp(-1.0))
    for focal in (0.5, 1.0, 2.0):
        weights = Losses(supervised=1.0, focal=focal, dice=False)
        expected = (1.5 + 6 + 1.5) * -math.log(1 - score) * (0.3 + score**focal)
        assert supervised_loss(logits, labels, weights).item() == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_sees_the_generators_own_scores_where_nothing_is_known() -> None:
    labels = torch.tensor([[[[0, 1, IGNORE]]]], dtype=torch.uint8)
    assert label_images(labels, torch.tensor([[[[0.3, 0.4, 0.5]]]])).flatten().tolist() == [-1.0, 1.0, 0.5]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_discriminator_sees_no_difference_where_nothing_is_known(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(1, 16)
    image, fake = (torch.rand(1, 3, 64, 64).contiguous(memory_format=layout) for _ in range(2))
    labels = torch.full((1, 3, 64, 64), IGNORE, dtype=torch.uint8)
    labels[..., :16] = 1
    real = label_images(labels, fake)
    first = [discriminator(image, shown)[0][0] for shown in (fake, real)]
    differs = (first[0] != first[1]).any(dim=(0, 1, 2))
    assert differs[:8].all()
    assert not differs[10:].any()


def test_the_u_net_keeps_the_patch_size() -> None:
    assert UNet(4)(torch.rand(1, 3, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0, 2.0, 5.0])
def test_focal_gradients_stay_finite_however_sure_a_discriminator_is(gamma: float) -> None:
    logits = torch.tensor([-500.0, -50.0, 0.0, 50.0, 500.0], requires_grad=True)
    total = focal_generator_loss([logits], gamma) + focal_discriminator_loss([logits], [logits], gamma)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()


def test_two_views_that_agree_where_they_overlap_cost_nothing_and_a_wrong_offset_does() -> None:
    scene = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([[5, 20], [17, 3]])
    views = torch.cat([scene[..., y : y + 64, x : x + 64] for y, x in offsets.tolist()]).requires_grad_()
    agreeing = consistency_loss(views, offsets)
    assert agreeing.item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(views, offsets.flip(0)).item() > 0.1


def test_the_consistency_gradient_draws_each_view_towards_the_other() -> None:
    logits = torch.zeros(2, 3, 64, 64)
    logits[1] = 3.0
    logits.requires_grad_()
    consistency_loss(logits, torch.zeros(2, 2, dtype=torch.int64)).backward()
    inner = logits.grad[..., EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
    assert (inner[0] < 0).all()
    assert (inner[1] > 0).all()
    assert logits.grad[..., :EDGE_PX, :].abs().sum() == 0


def a_patch_with(mitosis: float, spot: float, ground: float = -4.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of a patch with a mitosis, a spot that is none, and an unknown place."""
    logits = torch.full((1, 3, 96, 96), ground)
    labels = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    logits[:, 1, 10:30, 10:30], labels[:, 1, 10:30, 10:30] = mitosis, 1
    logits[:, 1, 60:80, 60:80] = spot
    logits[:, 1, :20, 70:], labels[:, 1, :20, 70:] = 9.0, IGNORE
    return logits, labels


def test_the_loss_of_spots_by_hand() -> None:
    logits, labels = a_patch_with(mitosis=1.5, spot=0.5)
    # A score is sigmoid(2 x); within the mitosis and the spot all logits are the same.
    expected = math.log1p(math.exp(-3.0)) + math.log1p(math.exp(1.0))
    assert spots_loss(logits, labels).item() == pytest.approx(expected, rel=0.02)
    nothing_there = torch.zeros_like(labels)
    assert spots_loss(logits, nothing_there).item() == pytest.approx(math.log1p(math.exp(18.0)), rel=0.02)
    assert spots_loss(logits, torch.full_like(labels, IGNORE)).item() == 0.0


def test_the_loss_of_spots_draws_on_mitoses_and_on_the_most_suspicious_spot_alone() -> None:
    logits, labels = a_patch_with(mitosis=1.5, spot=0.5)
    logits.requires_grad_()
    spots_loss(logits, labels).backward()
    assert logits.grad is not None
    drawn = logits.grad[0, 1]
    assert (drawn[14:26, 14:26] < 0).all()
    assert drawn[60:80, 60:80].sum() > 0
    drawn[10:30, 10:30] = drawn[60:80, 60:80] = 0
    assert drawn.abs().sum() == 0
    assert logits.grad[0, [0, 2]].abs().sum() == 0
