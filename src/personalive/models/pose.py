"""Head pose networks: the motion extractor, and the pose guider of its keypoint canvas (weights).

The extractor (LivePortrait's network M) is a ConvNeXt-V2 (Woo et al. 2023) with linear heads: frame to head pose and
canonical keypoints. The guider turns the canvas into features added after the denoiser's first convolution.

Letters: B images, C channels, H W feature height and width, K keypoints (21), N angle bins (66), S input side in
pixels; for the guider F frames, C channels of the denoiser's first level, S canvas side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.config import MotionExtractorConfig, PoseGuiderConfig
from personalive.vision.keypoints import HeadPose

_DEGREES_PER_BIN = 3.0  # weights; the bins are centred on 0 degrees
_EPS = 1e-6  # weights: of every layer norm and of the response normalisation
_EXPANSION = 4  # weights: inner width of a block over its width


@dataclass(frozen=True, slots=True, eq=False)
class PoseHeads:
    """Outputs of the linear heads, before angles are read from their bins (training supervises these)."""

    kp: Tensor  # (B, 3K)
    yaw: Tensor  # (B, N) logits
    pitch: Tensor  # (B, N) logits
    roll: Tensor  # (B, N) logits
    t: Tensor  # (B, 3)
    scale: Tensor  # (B, 1)


class MotionExtractor(nn.Module):
    """Head pose and implicit keypoints of a frame (weights: ``motion_extractor.pth``)."""

    def __init__(self, config: MotionExtractorConfig) -> None:
        super().__init__()
        self.detector = _Detector(config)

    def forward(self, images: Tensor) -> HeadPose:
        """(B, 3, S, S) in [0, 1] → B head poses."""
        return self.pose(self.heads(images))

    def heads(self, images: Tensor) -> PoseHeads:
        """(B, 3, S, S) in [0, 1] → raw heads with (B, N) bin logits."""
        return self.detector(images)

    @staticmethod
    def pose(heads: PoseHeads) -> HeadPose:
        """Read the angles from their bins; everything float32, because a bin's weight is tens of degrees."""
        return HeadPose(
            kp=heads.kp.float().unflatten(1, (-1, 3)),
            yaw=bins_to_degrees(heads.yaw),
            pitch=bins_to_degrees(heads.pitch),
            roll=bins_to_degrees(heads.roll),
            t=heads.t.float(),
            scale=heads.scale.float(),
        )


def bins_to_degrees(logits: Tensor) -> Tensor:
    """(B, N) bin logits → (B,) expected angle: 3 · Σ softmax · index − 97.5 degrees for 66 bins (weights)."""
    bins = logits.shape[1]
    centred = torch.arange(bins, device=logits.device, dtype=torch.float32) - (bins - 1) / 2
    return _DEGREES_PER_BIN * (torch.softmax(logits.float(), dim=1) * centred).sum(dim=1)


class _Detector(nn.Module):
    def __init__(self, config: MotionExtractorConfig) -> None:
        super().__init__()
        widths = config.widths
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), _ChannelNorm(widths[0], eps=_EPS))
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in pairwise(widths):
            halve = nn.Sequential(_ChannelNorm(narrow, eps=_EPS), nn.Conv2d(narrow, wide, 2, stride=2))
            self.downsample_layers.append(halve)
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(depth)))
            for width, depth in zip(widths, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=_EPS)
        self.fc_kp = nn.Linear(widths[-1], 3 * config.keypoints)
        self.fc_scale = nn.Linear(widths[-1], 1)
        self.fc_pitch = nn.Linear(widths[-1], config.angle_bins)
        self.fc_yaw = nn.Linear(widths[-1], config.angle_bins)
        self.fc_roll = nn.Linear(widths[-1], config.angle_bins)
        self.fc_t = nn.Linear(widths[-1], 3)

    def forward(self, images: Tensor) -> PoseHeads:
        """(B, 3, S, S) → heads."""
        x = images
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        x = self.norm(x.mean(dim=(2, 3)))
        return PoseHeads(
            kp=self.fc_kp(x),
            yaw=self.fc_yaw(x),
            pitch=self.fc_pitch(x),
            roll=self.fc_roll(x),
            t=self.fc_t(x),
            scale=self.fc_scale(x),
        )


class _Block(nn.Module):
    """7×7 depthwise → norm → widen → GELU → response normalisation → narrow, + input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.pwconv1 = nn.Linear(width, _EXPANSION * width)
        self.grn = _ResponseNorm(_EXPANSION * width)
        self.pwconv2 = nn.Linear(_EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same."""
        inner = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        inner = self.pwconv2(self.grn(F.gelu(self.pwconv1(inner))))
        return x + inner.permute(0, 3, 1, 2)


class _ResponseNorm(nn.Module):
    """Global response normalisation (ConvNeXt-V2, section 3): channels compete by their spatial L2 norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → same."""
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        relative = norm / (norm.mean(dim=-1, keepdim=True) + _EPS)
        return torch.addcmul(self.beta, self.gamma, x * relative) + x


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.LayerNorm gives it
        """(B, C, H, W) → same."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PoseGuider(nn.Module):
    """Eight 3×3 convolutions per frame, three of them with stride 2 (weights: ``pose_guider.pth``)."""

    def __init__(self, config: PoseGuiderConfig, out_channels: int) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(config.widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out_modify = nn.Conv2d(last, out_channels, 3, padding=1)

    def forward(self, canvas: Tensor) -> Tensor:
        """(F, 3, S, S) in [0, 1] → (F, C, S/8, S/8)."""
        x = F.silu(self.conv_in(canvas))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out_modify(x)
