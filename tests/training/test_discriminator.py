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
    discriminator_loss,
    generator_loss,
    rectify,
)

SMALL = DiscriminatorConfig(channel_base=256, max_channels=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def small() -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Discriminator(32, SMALL)


def test_weights_are_scaled_by_their_fan_in_when_used():
    conv = EqualConv(3, 5, 3)
    expected = F.conv2d(drawn(2, 3, 6, 6), conv.weight / math.sqrt(27), conv.bias, padding=1)
    torch.testing.assert_close(conv(drawn(2, 3, 6, 6)), expected)
    linear = EqualLinear(16, 4)
    torch.testing.assert_close(linear(drawn(2, 16)), drawn(2, 16) @ linear.weight.T / 4)


def test_fresh_layers_keep_the_spread_of_their_input():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = EqualConv(64, 64, 3)
    found = conv(drawn(2, 64, 32, 32))[:, :, 1:-1, 1:-1]
    assert found.std().item() == pytest.approx(1.0, rel=0.1)
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


def test_the_deviation_channel_by_hand():
    """Two images, one channel: values 1 and 3 everywhere have a spread of 1 around their mean."""
    x = torch.cat([torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 4, 4), 3.0)])
    found = add_deviation(x, group=4)
    assert found.shape == (2, 3, 4, 4)
    torch.testing.assert_close(found[:, :2], x)
    torch.testing.assert_close(found[:, 2], torch.ones(2, 4, 4))


def test_groups_have_four_pictures_and_are_apart():
    x = drawn(8, 3, 4, 4)
    x[1::2] = x[1]  # the second group: images 1, 3, 5, 7, all equal
    deviation = add_deviation(x, group=4)[:, 3, 0, 0]
    assert deviation[0::2].unique().numel() == 1
    assert deviation[0] > 0.3
    torch.testing.assert_close(deviation[1::2], torch.full((4,), 1e-4))
    assert add_deviation(x[:6], group=4).shape == (6, 4, 4, 4)  # groups of three
    assert add_deviation(x[:1], group=4)[0, 3].max() < 1e-3


def test_the_timestep_means_nothing_at_first_and_can_be_learned(small: Discriminator):
    images = drawn(4, 3, 32, 32)
    early, late = torch.zeros(4, dtype=torch.long), torch.full((4,), 999)
    assert torch.equal(small(images, early), small(images, late))
    loss = discriminator_loss(small(images, early), small(-images, early))
    gradients = torch.autograd.grad(loss, [block.time.weight for block in small.blocks])
    assert all(g.abs().max() > 0 for g in gradients)
    moved = Discriminator(32, SMALL)
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


def test_verdicts_are_one_number_each(small: Discriminator):
    verdict = small(drawn(3, 3, 32, 32), torch.tensor([0, 333, 999]))
    assert verdict.shape == (3,)
    assert 1e-3 < verdict.std() < 10


@pytest.mark.parametrize("size_px", [4, 24, 500])
def test_sides_that_cannot_be_halved_are_refused(size_px: int):
    with pytest.raises(InputError, match=f"{size_px} px"):
        Discriminator(size_px, SMALL)


def test_losses_by_hand():
    made, real = torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0])
    soft = lambda x: math.log1p(math.exp(x))  # noqa: E731
    assert generator_loss(made).item() == pytest.approx((soft(0) + soft(-2)) / 2)
    expected = (soft(0) + soft(2)) / 2 + (soft(-1) + soft(1)) / 2
    assert discriminator_loss(made, real).item() == pytest.approx(expected)


def test_it_learns_to_tell_two_kinds_apart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Discriminator(16, SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    levels = torch.zeros(4, dtype=torch.long)
    for step in range(20):
        real, made = drawn(4, 3, 16, 16, seed=2 * step) * 0.2, drawn(4, 3, 16, 16, seed=2 * step + 1) * 0.2 + 0.5
        loss = discriminator_loss(network(made, levels), network(real, levels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.7  # chance is 2 log 2
