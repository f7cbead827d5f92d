"""Changes of driving face crops, so that the motion encoder reads motion and not the person (paper).

Letters: B crops, s their side. Only driving crops are changed, never targets or references.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.training.recipe.settings import AugmentConfig

_GREY = (0.299, 0.587, 0.114)  # luma of RGB (BT.601)


def augment_faces(
    faces: Tensor, rngs: list[np.random.Generator], config: AugmentConfig, *, frames: int = 1
) -> Tensor:
    """Stretch, warp, recolour and add noise.

    Args:
        faces: (B * frames, 3, s, s) in [-1, 1].
        rngs: B generators; all frames of one share every draw but the noise (paper: one stretch per clip).
        config: strengths.
        frames: crops per generator, next to each other.

    Returns:
        The same shape, in [-1, 1].
    """
    grids, colours, noises = [], [], []
    for rng in rngs:
        grids.append(warp_grid(rng, faces.shape[-1], config))
        colours.append(1 + config.colour * rng.uniform(-1, 1, 3))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(frames, *faces.shape[1:], generator=generator)
        noises.append(rng.uniform(0, config.noise) * noise)
    grid = torch.stack(grids).to(faces).repeat_interleave(frames, dim=0)
    moved = F.grid_sample(faces, grid, mode="bilinear", padding_mode="border", align_corners=False)
    factors = torch.from_numpy(np.stack(colours)).to(faces).repeat_interleave(frames, dim=0)
    return (_recolour(moved, factors) + torch.cat(noises).to(faces)).clamp(-1, 1)


def warp_grid(rng: np.random.Generator, side: int, config: AugmentConfig) -> Tensor:
    """(s, s, 2) places to sample at, -1 to 1: one axis stretched, knots shifted, between them interpolated.

    The knots' shifts have a spread drawn from ``warp_min`` to ``warp_max`` sides. Between knots the shift is
    bilinear, which for small shifts is what a piecewise affine warp does.
    """
    line = (torch.arange(side, dtype=torch.float32) * 2 + 1) / side - 1
    places = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    axis = int(rng.integers(2))
    places[..., axis] /= rng.uniform(1, config.stretch)  # sampling a narrower range makes what is in it wider
    knots = rng.normal(0, rng.uniform(config.warp_min, config.warp_max), (2, config.warp_knots, config.warp_knots))
    shift = torch.from_numpy(knots).float()[None] * 2  # of sides to the range -1..1
    shift = F.interpolate(shift, size=(side, side), mode="bilinear", align_corners=True)[0]
    return places + shift.permute(1, 2, 0)


def _recolour(images: Tensor, factors: Tensor) -> Tensor:
    """(B, 3, s, s) in [-1, 1], (B, 3) factors of brightness, contrast and saturation."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)
    unit = (images / 2 + 0.5) * brightness
    mean = unit.mean(dim=(1, 2, 3), keepdim=True)
    unit = mean + contrast * (unit - mean)
    luma = torch.tensor(_GREY).to(unit)[None, :, None, None]
    grey = (unit * luma).sum(dim=1, keepdim=True)
    return (grey + saturation * (unit - grey)) * 2 - 1
