"""Changes of driving pictures in training, so that the motion nets read motion and not pixels (ours)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GAIN, SHIFT, NOISE = 0.25, 0.1, 0.02


def jitter_colours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, 3, H, W) in [0, 1]: random gain and shift per channel, a little noise; clamped."""
    B = len(images)
    gain = torch.from_numpy(rng.uniform(1 - GAIN, 1 + GAIN, (B, 3, 1, 1))).to(images)
    shift = torch.from_numpy(rng.uniform(-SHIFT, SHIFT, (B, 3, 1, 1))).to(images)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(images.shape, generator=generator).to(images)
    strength = torch.from_numpy(rng.uniform(0, NOISE, (B, 1, 1, 1))).to(images)
    return (images * gain + shift + strength * noise).clamp(0, 1)


def jitter_place(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, 3, H, W): shift by up to 4 %, zoom by up to 8 %, edges repeated; the face box is never exact."""
    B = len(images)
    zoom = torch.from_numpy(rng.uniform(0.92, 1.08, B)).to(images)
    shift = torch.from_numpy(rng.uniform(-0.08, 0.08, (B, 2))).to(images)
    theta = torch.zeros(B, 2, 3).to(images)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
