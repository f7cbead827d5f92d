"""LPIPS with VGG-16 (Zhang et al., CVPR 2018, version 0.1), with torchvision's keys but without torchvision.

Letters: N images, H and W at least 16.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a max pool between them
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
_EPSILON = 1e-10


class Lpips(nn.Module):
    """Learned perceptual distance of images; ``features`` has the keys of torchvision's VGG-16."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        taps, width = [], 3
        for stage in _STAGES:
            if layers:
                layers.append(nn.MaxPool2d(2, 2))
            for wider in stage:
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
            taps.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(stage[-1], 1, 1, bias=False) for stage in _STAGES)
        self._taps = taps
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[None, :, None, None], persistent=False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], twice -> distances (N,), 0 for equal images."""
        return self.distance(self.describe(one), self.describe(other))

    def describe(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [-1, 1] -> five maps (N, C_i, H_i, W_i), each position of length 1."""
        x = (images.float() - self.shift) / self.scale
        maps = []
        for start, end in pairwise([0, *self._taps]):
            for layer in list(self.features)[start:end]:
                x = layer(x)
            maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + _EPSILON))
        return maps

    def distance(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """Maps of ``describe``, twice -> distances (N,)."""
        parts = [
            head((a - b).square()).mean(dim=(1, 2, 3)) for head, a, b in zip(self.heads, one, other, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)
