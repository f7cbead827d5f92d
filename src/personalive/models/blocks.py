"""Blocks of the U-Nets: residual convolutions, resampling, and one level of the net.

Letters as in attention.py; E is the width of the time embedding. Source: released weights (the Stable
Diffusion 1.5 shape), paper section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from personalive.models.attention import (
    KV,
    FrameInputs,
    FrameModule,
    MotionAttention,
    SpatialTransformer,
    TemporalAttention,
)

RESNET_NORM_EPS = 1e-5


@dataclass(frozen=True)
class BlockSizes:
    """Sizes that every block of one net shares."""

    heads: int
    groups: int
    time_width: int
    context_width: int
    motion_width: int | None  # width of a motion token; None: no frame modules, as in the reference net


@dataclass(frozen=True)
class BlockInputs:
    """Inputs that every block of one pass receives."""

    time_embeddings: Mapping[str, Tensor]  # by resnet name, (B*F, C_out)
    context: Tensor  # (B, 1, D)
    along_frames: FrameInputs = field(default_factory=lambda: FrameInputs(1))
    reference: Mapping[str, KV] | None = None  # by block name
    temporal: bool = True  # False leaves the temporal modules out (image-level training)
    recompute: bool = False  # keep no activations inside levels; the backward pass computes them again
    last: str | None = None  # the block whose feature is the last thing wanted of this pass; None: all of it is
    features: dict[str, Tensor] | None = None  # filled where given: norm1 outputs (B*F, N, C) by block name


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, with the time embedding added between."""

    def __init__(self, in_channels: int, out_channels: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(sizes.groups, in_channels, eps=RESNET_NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(sizes.time_width, out_channels)
        self.norm2 = nn.GroupNorm(sizes.groups, out_channels, eps=RESNET_NORM_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)
        else:
            self.register_module("conv_shortcut", None)

    def forward(self, x: Tensor, time_embedding: Tensor) -> Tensor:
        """(B*F, C_in, H, W) and ``time_emb_proj`` of the time (B*F, C_out) -> (B*F, C_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + time_embedding[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Base of the down, mid and up blocks: resnets, each followed by its attentions and frame modules."""

    def __init__(self, name: str, resnets: list[tuple[int, int]], attends: bool, sizes: BlockSizes) -> None:
        super().__init__()
        self.name = name
        self.resnets = nn.ModuleList([ResnetBlock(i, o, sizes) for i, o in resnets])
        self._add_modules([o for _, o in resnets], attends, sizes)

    def _add_modules(self, widths: list[int], attends: bool, sizes: BlockSizes) -> None:
        heads, groups = sizes.heads, sizes.groups
        if attends:
            self.attentions = nn.ModuleList(
                [SpatialTransformer(w, heads, sizes.context_width, groups) for w in widths]
            )
        else:
            self.register_module("attentions", None)
        if sizes.motion_width is None:
            self.register_module("motion_modules", None)
            self.register_module("temporal_modules", None)
            return
        source = sizes.motion_width
        self.motion_modules = nn.ModuleList([FrameModule(MotionAttention, w, source, heads, groups) for w in widths])
        self.temporal_modules = nn.ModuleList([FrameModule(TemporalAttention, w, w, heads, groups) for w in widths])

    def apply_resnet(self, index: int, x: Tensor, inputs: BlockInputs) -> Tensor:
        """One resnet at the time of each frame."""
        return self.resnets[index](x, inputs.time_embeddings[f"{self.name}.resnets.{index}"])

    @staticmethod
    def _attend(attention: nn.Module, name: str, x: Tensor, inputs: BlockInputs) -> Tensor:
        """A spatial transformer; its feature is let go unless it is wanted: all of them take 0.3 GB for 16 frames."""
        reference = None if inputs.reference is None else inputs.reference[name]
        x, feature = attention(x, inputs.context, reference)
        if inputs.features is not None:
            inputs.features[name] = feature
        return x

    def after_resnet(self, index: int, x: Tensor, inputs: BlockInputs) -> Tensor:
        """Spatial transformer, motion module, temporal module, where the level has them."""
        if self.attentions is not None:
            name = f"{self.name}.attentions.{index}"
            if name == inputs.last and inputs.features is not None:
                inputs.features[name] = cast(SpatialTransformer, self.attentions[index]).feature(x)
                return x
            x = self._attend(self.attentions[index], name, x, inputs)
        if self.motion_modules is not None and self.temporal_modules is not None:
            x = self.motion_modules[index](x, inputs.along_frames)
            if inputs.temporal:
                x = self.temporal_modules[index](x, inputs.along_frames)
        return x


class DownBlock(Level):
    """One level on the way down; hands every intermediate result to the way up."""

    def __init__(
        self, name: str, channels: tuple[int, int], layers: int, attends: bool, last: bool, sizes: BlockSizes
    ) -> None:
        in_channels, out_channels = channels
        widths = [(in_channels if i == 0 else out_channels, out_channels) for i in range(layers)]
        super().__init__(name, widths, attends, sizes)
        if last:
            self.register_module("downsamplers", None)
        else:
            self.downsamplers = nn.ModuleList([Downsample(out_channels)])

    def forward(self, x: Tensor, inputs: BlockInputs) -> tuple[Tensor, list[Tensor]]:
        """(B*F, C_in, H, W) -> (B*F, C_out, H/2, W/2) and the skips."""
        skips = []
        for index in range(len(self.resnets)):
            x = self.after_resnet(index, self.apply_resnet(index, x, inputs), inputs)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MidBlock(Level):
    """Resnet, attentions and frame modules, resnet."""

    def __init__(self, channels: int, sizes: BlockSizes) -> None:
        super().__init__("mid_block", [(channels, channels)], True, sizes)
        self.resnets.append(ResnetBlock(channels, channels, sizes))

    def forward(self, x: Tensor, inputs: BlockInputs) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        x = self.after_resnet(0, self.apply_resnet(0, x, inputs), inputs)
        return self.apply_resnet(1, x, inputs)


class UpBlock(Level):
    """One level on the way up; every resnet takes one skip."""

    def __init__(
        self, name: str, resnets: list[tuple[int, int]], attends: bool, last: bool, sizes: BlockSizes
    ) -> None:
        super().__init__(name, resnets, attends, sizes)
        if last:
            self.register_module("upsamplers", None)
        else:
            self.upsamplers = nn.ModuleList([Upsample(resnets[-1][1])])

    def forward(self, x: Tensor, skips: list[Tensor], inputs: BlockInputs) -> Tensor:
        """(B*F, C_in, H, W) and one skip per resnet, last first -> (B*F, C_out, 2H, 2W)."""
        for index, skip in enumerate(reversed(skips)):
            x = torch.cat([x, skip], dim=1)
            x = self.after_resnet(index, self.apply_resnet(index, x, inputs), inputs)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding (cosines first) through two linear layers."""

    def __init__(self, channels: int, time_width: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, time_width)
        self.linear_2 = nn.Linear(time_width, time_width)

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B, F) integers -> (B*F, E)."""
        half = self.channels // 2
        exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
        angle = rearrange(timesteps, "b f -> (b f) 1").float() * 10000.0**-exponent
        wave = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(wave)))
