"""The GEGLU feed-forward shared by every transformer block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # hidden width over model width, in all released networks


class Geglu(nn.Module):
    """Gated linear unit with exact GELU (weights)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        opened = F.gelu(gate)
        if torch.is_grad_enabled():
            return value * opened
        return opened.mul_(value)  # the widest tensors of the denoiser: one less of them at its worst moment


class FeedForward(nn.Module):
    """GEGLU and a linear layer back; keys ``net.0.proj`` and ``net.2`` as released."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        # the empty middle place keeps the released numbering (a dropout stood there)
        self.net = nn.ModuleList([Geglu(width, hidden), nn.Identity(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.net[2](self.net[0](x))
