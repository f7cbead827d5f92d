"""A start for the small autoencoder: the best linear packing of pixels into latents that it can hold (ours).

An autoencoder this narrow spends its first thousands of steps on finding out how to pass pixels through at all:
nearest-neighbour enlarging followed by a 3x3 convolution does not know which of four pixels it is making. The same
path without norms and activations is a chain of a few convolutions that trains in a minute; its weights are then
placed in the real net so that, with all residual branches at zero, it computes the same.

Letters: c channels of a scale, C latent channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LR = 6e-3
STEADY = 4.0  # strength of the constant channels that keep a norm from rescaling the image
SAMPLE_BATCHES = 16  # that the spread of the latents is measured on
LOG_VARIANCE = -10.0


class LinearPath(nn.Module):
    """Linear path of an AutoencoderKL: every residual branch, norm and activation is taken away."""

    def __init__(self, widths: list[int], latent_channels: int) -> None:
        super().__init__()
        ins = [3, *widths[:-2]]
        self.downs = [nn.Conv2d(i, o, 3, stride=2) for i, o in zip(ins, widths[:-1], strict=True)]
        self.latent = nn.Conv2d(widths[-2], latent_channels, 1)
        self.enter = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
        back = widths[::-1]
        self.ups = [nn.Conv2d(i, o, 3, padding=1) for i, o in zip(back[:-1], [*back[1:-1], 3], strict=True)]
        self.chain = nn.ModuleList([*self.downs, self.latent, self.enter, *self.ups])
        for conv in self.downs:
            _pack_pixels(conv)
        nn.init.orthogonal_(self.latent.weight)
        for conv in (self.enter, *self.ups):
            nn.init.orthogonal_(conv.weight)
        for conv in (*self.downs, self.latent, self.enter, *self.ups):
            nn.init.zeros_(_bias(conv))

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        for conv in self.downs:
            x = conv(F.pad(x, (0, 1, 0, 1)))
        return self.latent(x)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W)."""
        x = self.enter(z)
        for conv in self.ups:
            x = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


def fit(path: LinearPath, images_of: Callable[[int], Tensor], steps: int) -> float:
    """Train the path on squared error of images in [-1, 1]; returns the last error. Latents end with spread 1."""
    optimiser = torch.optim.Adam(path.parameters(), lr=LR, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps, pct_start=0.1)
    loss = torch.zeros(())
    for step in range(steps):
        images = images_of(step)
        loss = F.mse_loss(path.decode(path.encode(images)), images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    _whiten(path, torch.cat([images_of(steps + i) for i in range(SAMPLE_BATCHES)]))
    return loss.item()


@torch.no_grad()
def _whiten(path: LinearPath, images: Tensor) -> None:
    """Turn the latents to their principal axes, strongest first, each with spread 1; the images stay the same."""
    z = path.encode(images).transpose(0, 1).flatten(1)
    mean = z.mean(dim=1)
    values, axes = torch.linalg.eigh(torch.cov(z))
    values, axes = values.flip(0).clamp_min(1e-8), axes.flip(1)
    forward = axes.T / values.sqrt()[:, None]
    back = axes * values.sqrt()
    _bias(path.latent).copy_(forward @ (_bias(path.latent) - mean))
    path.latent.weight.copy_(torch.einsum("oc,cihw->oihw", forward, path.latent.weight))
    _bias(path.enter).add_(path.enter.weight.sum(dim=(2, 3)) @ mean)  # but for the outermost pixels, which are padded
    path.enter.weight.copy_(torch.einsum("oihw,ic->ochw", path.enter.weight, back))


@torch.no_grad()
def place(path: LinearPath, vae: Any) -> None:
    """Put the path's weights into an AutoencoderKL whose residual branches are zero.

    Its last width must differ from the one before (the latents are made where that changes) and hold each latent
    twice; with more than one norm group the result is only near the path's.

    Norm and activation before the last convolutions are passed by sending every signal twice with opposite signs,
    silu(x) - silu(-x) = x, beside constant channels that hold the norm steady.
    """
    encoder, decoder = vae.encoder, vae.decoder
    widths = list(vae.config.block_out_channels)
    C = path.latent.out_channels
    _set(encoder.conv_in, torch.eye(3)[:, :, None, None], torch.zeros(3))
    for i, conv in enumerate(path.downs):
        block = encoder.down_blocks[i]
        _embed(block.resnets[0])
        _set(block.downsamplers[0].conv, conv.weight, _bias(conv))
    last = encoder.down_blocks[-1].resnets[0]
    signal = torch.cat([path.latent.weight, -path.latent.weight])
    steady = _steady(widths[-1] - 2 * C)
    bias = torch.cat([_bias(path.latent), -_bias(path.latent), steady])
    _set(last.conv_shortcut, signal, bias)
    _read_pairs(encoder.conv_out, C, spread(1.0, 2 * C, steady))
    encoder.conv_out.bias[C:] = LOG_VARIANCE
    for conv in (vae.quant_conv, vae.post_quant_conv):
        _set(conv, torch.eye(conv.in_channels)[:, :, None, None], torch.zeros(conv.in_channels))
    _set(decoder.conv_in, path.enter.weight, _bias(path.enter))
    for i, conv in enumerate(path.ups):
        block = decoder.up_blocks[i]
        _embed(block.resnets[0])
        weight, bias = conv.weight, _bias(conv)
        if i == len(path.ups) - 1:
            steady = _steady(widths[0] - 6)
            weight, bias = torch.cat([weight, -weight]), torch.cat([bias, -bias, steady])
            _read_pairs(decoder.conv_out, 3, spread(0.5, 6, steady))
        _set(block.upsamplers[0].conv, weight, bias)
    _embed(decoder.up_blocks[-1].resnets[0])


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Write a smaller kernel into the first channels and the middle of a convolution; the rest is zero."""
    o, i, kh, _ = weight.shape
    edge = (conv.kernel_size[0] - kh) // 2
    conv.weight.zero_()
    conv.weight[:o, :i, edge : edge + kh, edge : edge + kh] = weight
    _bias(conv).zero_()
    _bias(conv)[: len(bias)] = bias


def _embed(resnet: Any) -> None:
    """Let the first channels through where a block changes the number of channels."""
    if resnet.conv_shortcut is not None:
        o, i = resnet.conv_shortcut.weight.shape[:2]
        _set(resnet.conv_shortcut, torch.eye(o, i)[:, :, None, None], torch.zeros(o))


def _steady(count: int) -> Tensor:
    return STEADY * torch.tensor([1.0, -1.0]).repeat(count)[:count]


def spread(signal: float, signals: int, steady: Tensor) -> float:
    """Divisor of a norm over signals of that spread and the constants."""
    values = torch.cat([torch.full((signals,), signal), steady])
    return float((values.square().mean() - steady.sum().div(len(values)).square()).sqrt())


def _read_pairs(conv: nn.Conv2d, count: int, gain: float) -> None:
    conv.weight.zero_()
    _bias(conv).zero_()
    middle = conv.kernel_size[0] // 2
    for c in range(count):
        conv.weight[c, c, middle, middle] = gain
        conv.weight[c, count + c, middle, middle] = -gain


def _pack_pixels(conv: nn.Conv2d) -> None:
    """Make a stride-2 convolution take each 2x2 block into its channels without losing a direction twice."""
    out_channels, in_channels = conv.weight.shape[:2]
    packing = nn.init.orthogonal_(torch.empty(out_channels, 4 * in_channels))
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, :2, :2] = packing.view(out_channels, in_channels, 2, 2)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
