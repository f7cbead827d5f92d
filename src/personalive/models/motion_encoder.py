"""The motion encoder: face crop to motion tokens (weights: ``motion_encoder.pth``).

A one-stack face-alignment hourglass (FAN, Bulat and Tzimiropoulos 2017) with three transformer inserts.
Axis letters: B faces, C channels, H W feature height and width, G side of the token grid (S/8), N = G·G
tokens, D attention width, S crop side in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from personalive.config import MotionEncoderConfig
from personalive.errors import CheckpointError
from personalive.models.attention import TRANSFORMER_GROUP_NORM_EPS, FeedForward, Projections, attend

_HOURGLASS_DEPTH = 4  # weights
_MIN_FACE_PX = 64  # the hourglass halves S/4 four times
_NORM_GROUPS = 32  # weights; fewer where a narrow model has fewer channels
_DOWNSAMPLE_EPS = 1e-4  # weights: unlike the 1e-5 of every other batch norm


class MotionEncoder(nn.Module):
    """Facial motion of a crop as 1-D tokens (paper: implicit facial motion)."""

    pe: Tensor

    def __init__(self, config: MotionEncoderConfig) -> None:
        super().__init__()
        _check(config)
        self.tokens, self.token_width = config.tokens, config.token_width
        flat = config.tokens * config.token_width
        self.model = _Hourglass(config, flat)
        self.final_proj = nn.Linear(flat, flat)
        self.register_buffer("pe", _sin_cos_table(config.tokens, config.token_width)[None])

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] → (B, tokens, token_width)."""
        return self.tokens_of(self.maps(faces))

    def maps(self, faces: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] → what the tokens are read from: (B, landmark maps, S/4, S/4), not negative."""
        return self.model.maps(faces)

    def tokens_of(self, maps: Tensor) -> Tensor:
        """``maps`` → (B, tokens, token_width)."""
        motion = self.final_proj(self.model.summary(maps))
        return motion.unflatten(1, (self.tokens, self.token_width)) + self.pe


def _check(config: MotionEncoderConfig) -> None:
    """Refuse sizes that the strides, patches or heads do not divide.

    Raises:
        CheckpointError: with the name and the rule.
    """
    rules = {
        f"face_size_px {config.face_size_px} must be a multiple of 8 and at least {_MIN_FACE_PX}": (
            config.face_size_px % 8 == 0 and config.face_size_px >= _MIN_FACE_PX
        ),
        f"attention_width {config.attention_width} must be a multiple of 16 and of attention_heads": (
            config.attention_width % 16 == 0 and config.attention_width % config.attention_heads == 0
        ),
        f"width {config.width} must be a multiple of 8": config.width % 8 == 0,
        f"token_width {config.token_width} must be even": config.token_width % 2 == 0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(f"personalive/config.json: motion_encoder.{rule}; correct the config")


class _Hourglass(nn.Module):
    def __init__(self, config: MotionEncoderConfig, flat: int) -> None:
        super().__init__()
        narrow, middle, wide = config.width, 2 * config.width, 4 * config.width
        grid = config.face_size_px // 8
        self.conv1 = nn.Conv2d(3, narrow, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = _ConvBlock(narrow, middle)
        self.att_1 = _TransformerInsert(config, middle, patch=4)
        self.conv3 = _ConvBlock(middle, middle)
        self.conv4 = _ConvBlock(middle, wide)
        self.att_2 = _TransformerInsert(config, wide, patch=2)
        self.m0 = _HourglassStack(wide)
        self.top_m_0 = _ConvBlock(wide, wide)
        self.conv_last0 = nn.Conv2d(wide, wide, 1)
        self.bn_end0 = nn.BatchNorm2d(wide)
        self.att_3 = _TransformerInsert(config, wide, patch=2)
        self.l0 = nn.Conv2d(wide, config.landmark_maps, 1)
        self.bn5 = nn.BatchNorm2d(config.landmark_maps)
        self.conv6 = nn.Conv2d(config.landmark_maps, 1, 3, stride=2, padding=1)
        self.fc = nn.Linear(grid * grid, flat)

    def maps(self, faces: Tensor) -> Tensor:
        """(B, 3, S, S) → (B, landmark maps, S/4, S/4)."""
        x = F.relu(self.bn1(self.conv1(faces)))  # side S/2
        x = F.max_pool2d(self.att_1(self.conv2(x)), 2)  # S/4
        x = self.att_2(self.conv4(self.conv3(x)))
        x = self.top_m_0(self.m0(x))
        x = F.relu(self.att_3(self.bn_end0(self.conv_last0(x))))
        return F.relu(self.bn5(self.l0(x)))

    def summary(self, maps: Tensor) -> Tensor:
        """``maps`` → (B, tokens · token_width)."""
        return self.fc(F.relu(self.conv6(maps).flatten(1)))  # S/8


class _ConvBlock(nn.Module):
    """Three pre-activated 3×3 convolutions in a row, their outputs side by side, + input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.BatchNorm2d(in_channels, eps=_DOWNSAMPLE_EPS),
                nn.ReLU(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        skip = x if self.downsample is None else self.downsample(x)
        return torch.cat([first, second, third], dim=1) + skip


class _HourglassStack(nn.Module):
    """Halve four times, come back up, add what each level skipped. Blocks are named by level, 4 outermost."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for level in range(_HOURGLASS_DEPTH, 0, -1):
            for branch in ("b1", "b2", "b3"):
                self.add_module(f"{branch}_{level}", _ConvBlock(width, width))
        self.b2_plus_1 = _ConvBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same."""
        return self._level(_HOURGLASS_DEPTH, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        skip = self.get_submodule(f"b1_{level}")(x)
        low = self.get_submodule(f"b2_{level}")(F.max_pool2d(x, 2))
        low = self._level(level - 1, low) if level > 1 else self.b2_plus_1(low)
        low = self.get_submodule(f"b3_{level}")(low)
        return skip + F.interpolate(low, size=skip.shape[-2:], mode="bilinear", align_corners=False)


class _TransformerInsert(nn.Module):
    """One transformer block over the patches of a feature map, added to it; the grid is S/8 each time."""

    def __init__(self, config: MotionEncoderConfig, channels: int, patch: int) -> None:
        super().__init__()
        width, grid = config.attention_width, config.face_size_px // 8
        self.patch = patch
        self.norm = nn.GroupNorm(min(_NORM_GROUPS, channels), channels, eps=TRANSFORMER_GROUP_NORM_EPS)
        self.pos_embed = _PatchEmbedding(channels, width, patch, grid)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(width, config.attention_heads)])
        self.proj_out = nn.Linear(width // patch**2, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, G·p, G·p) → same, p the patch side."""
        tokens = self.pos_embed(self.norm(x))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        p, grid = self.patch, x.shape[-1] // self.patch
        tokens = rearrange(tokens, "b n (p q c) -> b n p q c", p=p, q=p)
        patches = self.proj_out(tokens)
        return x + rearrange(patches, "b (h w) p q c -> b c (h p) (w q)", h=grid)


class _PatchEmbedding(nn.Module):
    """Patches to tokens with a fixed 2-D position table (DiT layout; not in the file)."""

    table: Tensor

    def __init__(self, channels: int, width: int, patch: int, grid: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("table", _grid_table(grid, width)[None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, G·p, G·p) → (B, N, D)."""
        return self.proj(x).flatten(2).transpose(1, 2) + self.table


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([_SelfAttention(width, width, heads)])
        self.norms = nn.ModuleList([nn.LayerNorm(width)])
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → same."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class _SelfAttention(Projections):
    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) → same."""
        return self.to_out[0](attend(self.to_q(x), self.to_k(x), self.to_v(x), self.heads))


def _sin_cos_table(positions: int, width: int) -> Tensor:
    """(positions, width) float32: sine in the first half of the channels, then cosine; base 10000."""
    # The explicit device keeps the table real when the model is built on the meta device.
    position = torch.arange(positions, dtype=torch.float64, device="cpu")
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width
    angle = position[:, None] * 10000.0**-exponent
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def _grid_table(grid: int, width: int) -> Tensor:
    """(grid², width) float32: column in the first half of the channels, row in the second."""
    line = _sin_cos_table(grid, width // 2)
    column = line[None].expand(grid, -1, -1)
    row = line[:, None].expand(-1, grid, -1)
    return torch.cat([column, row], dim=2).flatten(0, 1)
