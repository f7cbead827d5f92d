"""The discriminator's pieces against values worked out by hand, and the losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.errors import InputError
from personalive.training.config import DiscriminatorConfig
from personalive.training.discriminator import (
    Discriminator,
    EqualConv,
    EqualLinear,
    add_deviation,
    blur_halve,
    rectify,
)
from personalive.training.losses import PixelLoss
from support.toy_run import toy_config, toy_context

SMALL = DiscriminatorConfig(channel_base=256, max_channels=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def loss() -> PixelLoss:
    context = toy_context(toy_config("distill"))
    return PixelLoss(context.config, context.networks, context.compute)


def test_weights_are_scaled_by_their_fan_in_when_used():
    conv = EqualConv(3, 5, 3)
    expected = F.conv2d(drawn(2, 3, 6, 6), conv.weight / math.sqrt(27), conv.bias, padding=1)
    torch.testing.assert_close(conv(drawn(2, 3, 6, 6)), expected)
    linear = EqualLinear(16, 4)
    torch.testing.assert_close(linear(drawn(2, 16)), drawn(2, 16) @ linear.weight.T / 4)
    assert rectify(torch.tensor([2.0, -2.0])).tolist() == pytest.approx([2 * math.sqrt(2), -0.4 * math.sqrt(2)])


def test_halving_blurs_with_the_binomial_filter():
    point = torch.zeros(1, 1, 8, 8)
    point[0, 0, 3, 3] = 64.0
    found = blur_halve(point)[0, 0]
    # pixel 3 lies second in the windows that begin at 2 - 1 and at 4 - 1: weights 3 and 1 on each axis
    expected = torch.zeros(4, 4)
    expected[1, 1], expected[1, 2], expected[2, 1], expected[2, 2] = 9.0, 3.0, 3.0, 1.0
    torch.testing.assert_close(found, expected)
    flat = torch.full((1, 3, 8, 8), 0.7)
    torch.testing.assert_close(blur_halve(flat), torch.full((1, 3, 4, 4), 0.7))


def test_groups_have_four_images_and_are_apart():
    x = drawn(8, 3, 4, 4)
    x[1::2] = x[1]  # the second group: images 1, 3, 5, 7, all equal
    found = add_deviation(x, group=4)
    torch.testing.assert_close(found[:, :3], x)
    torch.testing.assert_close(found[::2, 3], x[::2].std(dim=0, unbiased=False).mean().expand(4, 4, 4))
    torch.testing.assert_close(found[1::2, 3, 0, 0], torch.full((4,), 1e-4))
    assert add_deviation(x[:6], group=4).shape == (6, 4, 4, 4)  # groups of three
    assert add_deviation(x[:1], group=4)[0, 3].max() < 1e-3


def test_the_timestep_means_nothing_at_first_and_can_be_learned(loss: PixelLoss):
    images, small = drawn(4, 3, 64, 64), loss.discriminator
    early, late = torch.zeros(4, dtype=torch.long), torch.full((4,), 999)
    assert torch.equal(small(images, early), small(images, late))
    value = loss.discriminator_loss(images, -images, early)["discriminator"]
    gradients = torch.autograd.grad(value, [block.time.weight for block in small.blocks])
    assert all(g.abs().max() > 0 for g in gradients)
    moved = Discriminator(64, SMALL)
    moved.load_state_dict(small.state_dict())
    with torch.no_grad():
        for block in moved.blocks:
            block.time.weight.normal_(generator=torch.Generator().manual_seed(0))
    assert not torch.equal(moved(images, early), moved(images, late))


def test_widths_are_those_of_stylegan2():
    with torch.device("meta"):
        full = Discriminator(512, DiscriminatorConfig())
    assert [b.conv2.weight.shape[0] for b in full.blocks] == [128, 256, 512, 512, 512, 512, 512]
    assert full.from_rgb.weight.shape == (64, 3, 1, 1)
    assert full.last_conv.weight.shape == (512, 513, 3, 3)
    assert full.last_hidden.weight.shape == (512, 8192)


@pytest.mark.parametrize("size_px", [4, 24, 500])
def test_sides_that_cannot_be_halved_are_refused(size_px: int):
    with pytest.raises(InputError, match=f"{size_px} px"):
        Discriminator(size_px, SMALL)


def test_losses_by_hand(loss: PixelLoss, monkeypatch: pytest.MonkeyPatch):
    made, real, soft = torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0]), lambda x: math.log1p(math.exp(x))
    monkeypatch.setattr(loss, "_verdict", lambda images, levels: images)
    found = loss.discriminator_loss(made, real, torch.zeros(2))
    assert found["discriminator"].item() == pytest.approx((soft(0) + soft(2)) / 2 + (soft(-1) + soft(1)) / 2)
    assert (found["verdict_made"], found["verdict_real"]) == (1, 0)
    clean, target, masks = drawn(2, 4, 8, 8), torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr(loss, "_verdict", lambda images, levels: made)
    without, shown = (loss.output(clean, target, masks, torch.zeros(2), step).losses for step in (None, 1))
    assert shown["adversarial"].item() == pytest.approx((soft(0) + soft(-2)) / 2)
    assert (shown["loss"] - without["loss"]).item() == pytest.approx(0.05 * shown["adversarial"].item(), rel=1e-3)
