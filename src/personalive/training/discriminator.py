"""Discriminators: of images, of the StyleGAN2 kind, that knows the timestep; and of latents, place by place (ours).

Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN" (residual blocks, equalised
learning rate, blurred downsampling); Karras et al. 2018 (minibatch deviation); timestep conditioning through
zero-initialised projections as in the paper's stage 2. Of latents: Isola et al. 2017 (patches, pairs), Miyato et al.
2018 (spectral norms), Miyato and Koyama 2018 (projection), Esser et al. 2021 (weight from the ratio of gradients).

Letters: N images, C channels, S their side, E embedding width; h w latent sides, M numbers of motion.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from personalive.errors import InputError
from personalive.models.blocks import TimeEmbedding
from personalive.training.config import DiscriminatorConfig

SLOPE = 0.2  # of the leaky rectifier (StyleGAN2)
GAIN = math.sqrt(2)  # that keeps the spread behind it
BLUR = (1.0, 3.0, 3.0, 1.0)  # binomial filter in front of every halving (StyleGAN2)
LAST_SIDE = 4
TIME_WIDTH = 64  # channels of the timestep's sinusoids; the embedding is as wide (ours)
_DEVIATION_EPS = 1e-8


class EqualConv(nn.Module):
    """Convolution whose weights are drawn with spread 1 and scaled when used, so that all learn at one rate."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = 1 / math.sqrt(in_channels * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.weight.shape[-1] // 2)


class EqualLinear(nn.Module):
    """Linear layer, scaled in the same way."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_width, in_width))
        self.bias = nn.Parameter(torch.zeros(out_width))
        self.scale = 1 / math.sqrt(in_width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_width) -> (N, out_width)."""
        return F.linear(x, self.weight * self.scale, self.bias)


def rectify(x: Tensor) -> Tensor:
    """Leaky rectifier that keeps the spread."""
    return F.leaky_relu(x, SLOPE) * GAIN


def blur_halve(x: Tensor) -> Tensor:
    """(N, C, S, S) -> (N, C, S/2, S/2): blurred, then every other pixel; edges repeat, so flat stays flat."""
    line = torch.tensor(BLUR, device=x.device, dtype=x.dtype)
    kernel = (line[:, None] * line[None] / line.sum() ** 2).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


def add_deviation(x: Tensor, group: int) -> Tensor:
    """(N, C, S, S) -> (N, C + 1, S, S): one more channel, how much the images of a group differ on average.

    Groups have ``group`` images, or the largest number below that which divides N.
    """
    size = next(n for n in range(min(group, len(x)), 0, -1) if len(x) % n == 0)
    grouped = rearrange(x.float(), "(g m) c h w -> g m c h w", g=size)  # images of one group lie m apart
    variance = grouped.var(dim=0, unbiased=False)
    deviation = (variance + _DEVIATION_EPS).sqrt().mean(dim=(1, 2, 3))  # (m,)
    channel = deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class DownBlock(nn.Module):
    """Two convolutions and a halving, beside a halved 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualConv(in_channels, in_channels, 3)
        self.conv2 = EqualConv(in_channels, out_channels, 3)
        self.skip = EqualConv(in_channels, out_channels, 1, bias=False)
        self.time = nn.Linear(TIME_WIDTH, in_channels)  # zero: the timestep means nothing at first
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, C_in, S, S), (N, E) -> (N, C_out, S/2, S/2)."""
        h = rectify(self.conv1(x) + self.time(time)[:, :, None, None])
        h = rectify(self.conv2(blur_halve(h)))
        return (h + self.skip(blur_halve(x))) / GAIN


class Discriminator(nn.Module):
    """Images and timesteps to one number each: high for real ones."""

    def __init__(self, size_px: int, config: DiscriminatorConfig) -> None:
        """
        Raises:
            InputError: a side that cannot be halved down to 4.
        """
        super().__init__()
        halvings = math.log2(size_px / LAST_SIDE)
        if size_px < 2 * LAST_SIDE or not halvings.is_integer():
            raise InputError(
                f"a discriminator for images of {size_px} px: their side must be a power of two from "
                f"{2 * LAST_SIDE} up; use a model of such a size, or train without stage distill"
            )
        sides = [size_px >> i for i in range(int(halvings) + 1)]
        widths = [max(1, min(config.channel_base // side, config.max_channels)) for side in sides]
        self.group = config.deviation_group
        self.time_embedding = TimeEmbedding(TIME_WIDTH, TIME_WIDTH)
        self.from_rgb = EqualConv(3, widths[0], 1)
        self.blocks = nn.ModuleList(DownBlock(wide, narrow) for wide, narrow in pairwise(widths))
        self.last_conv = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.last_hidden = EqualLinear(widths[-1] * LAST_SIDE**2, widths[-1])
        self.verdict = EqualLinear(widths[-1], 1)

    def forward(self, images: Tensor, timesteps: Tensor) -> Tensor:
        """(N, 3, S, S) about [-1, 1], (N,) integers -> (N,)."""
        time = F.silu(self.time_embedding(timesteps[:, None]))
        x = rectify(self.from_rgb(images))
        for block in self.blocks:
            x = block(x, time)
        x = rectify(self.last_conv(add_deviation(x, self.group)))
        return self.verdict(rectify(self.last_hidden(x.flatten(1))))[:, 0].float()


# --- of latents (ours) --------------------------------------------------------------------------------------

LATENT_WIDTHS = (64, 96, 128)
SCORE_SIDE = 2  # a score speaks for as many cells a side


class Judged(NamedTuple):
    """Inputs of the discriminator of latents for N frames, beside the latents that were made."""

    real: Tensor  # (N, C, h, w) clean latents
    entering: Tensor  # (N, C, h, w) what the frames entered as
    motion: Tensor  # (N, M)
    weight: Tensor  # (N, h/2, w/2) how much each place matters, mean 1


class LatentDiscriminator(nn.Module):
    """Scores of places: high where the latent looks like one that was encoded.

    An error alone is smallest for a blur wherever the place of an edge is in doubt, and a mouth smeared over two
    places is open in neither. This network tells crisp latents from smeared ones. It costs a tenth of a step, where
    decoding the faces alone costs a quarter.
    """

    def __init__(self, channels: int, motion: int, seed: int = 0) -> None:
        super().__init__()
        first, second, last = LATENT_WIDTHS
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # all processes begin with the same one
            self.first = spectral_norm(nn.Conv2d(2 * channels, first, 3, padding=1))
            self.second = spectral_norm(nn.Conv2d(first, second, 3, stride=SCORE_SIDE, padding=1))
            self.third = spectral_norm(nn.Conv2d(second, last, 3, padding=1))
            self.fourth = spectral_norm(nn.Conv2d(last, last, 3, padding=1))
            self.score = spectral_norm(nn.Conv2d(last, 1, 1))
            self.shift = spectral_norm(nn.Linear(motion, last))
            self.project = spectral_norm(nn.Linear(motion, last))

    def forward(self, latents: Tensor, entering: Tensor, motion: Tensor) -> Tensor:
        """(N, C, h, w), (N, C, h, w), (N, M) -> (N, h/2, w/2), float32."""
        x = F.leaky_relu(self.first(torch.cat([latents, entering], dim=1)), SLOPE)
        x = F.leaky_relu(self.second(x), SLOPE)
        x = F.leaky_relu(self.third(x) + self.shift(motion)[:, :, None, None], SLOPE)
        x = F.leaky_relu(self.fourth(x), SLOPE)
        agreement = (x * self.project(motion)[:, :, None, None]).mean(dim=1)
        return self.score(x)[:, 0].float() + agreement.float()
