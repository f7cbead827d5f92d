"""The pose guider: keypoint canvas to features added after the denoiser's first convolution (weights).

Axis letters: F frames, C channels of the denoiser's first level, S canvas side in pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from personalive.config import PoseGuiderConfig


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
