"""Changes of driving images, so that the motion networks read motion and not the person.

Face crops are changed as in the paper; whole images of heads whose true pose is known are moved too, pose and all
(ours). Targets and references are never changed. Letters: B images, s side of a crop, S of a whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.synthetic import KEYPOINT_NAMES
from personalive.training.config import AugmentConfig
from personalive.vision.keypoints import HeadPose, rotation_matrix

_GREY = (0.299, 0.587, 0.114)  # luma of RGB (BT.601)


def augment_faces(
    faces: Tensor, rngs: Sequence[np.random.Generator], config: AugmentConfig, *, frames: int = 1
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


# --- whole images (ours) ---------------------------------------------------------------------------------------

GAIN, SHIFT, NOISE = 0.25, 0.1, 0.02
TURN_DEG, ZOOM, PAN = 3.0, 0.04, 0.04  # up to this much either way; pan in half sides


def jitter_colours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(B, 3, H, W) in [0, 1]: random gain and shift per channel, a little noise; clamped."""
    B = len(images)
    gain = torch.from_numpy(rng.uniform(1 - GAIN, 1 + GAIN, (B, 3, 1, 1))).to(images)
    shift = torch.from_numpy(rng.uniform(-SHIFT, SHIFT, (B, 3, 1, 1))).to(images)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(images.shape, generator=generator).to(images)
    strength = torch.from_numpy(rng.uniform(0, NOISE, (B, 1, 1, 1))).to(images)
    return (images * gain + shift + strength * noise).clamp(0, 1)


def vary_view(images: Tensor, pose: HeadPose, rng: np.random.Generator) -> tuple[Tensor, HeadPose]:
    """Turn, zoom, pan and mirror whole images of synthetic heads; the true pose changes exactly along.

    Args:
        images: (B, 3, S, S); what comes into view repeats the edges.
        pose: their B poses.

    Returns:
        The changed images and poses.
    """
    B = len(images)
    flip = torch.from_numpy(rng.random(B) < 0.5).to(images.device)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    pose = _mirrored(pose, flip)
    turn, zoom, *pan = (torch.from_numpy(rng.uniform(-1, 1, B)).to(pose.t) for _ in range(4))
    turn, zoom = TURN_DEG * turn, 1 + ZOOM * zoom
    moved = PAN * torch.stack(pan, dim=1)
    around = rotation_matrix(torch.zeros_like(turn), torch.zeros_like(turn), turn)[:, :2, :2]  # row vectors
    back = around.mT / zoom[:, None, None]  # shown place -> where it was
    theta = torch.cat([back.mT, -(moved[:, None] @ back).mT], dim=2)  # as columns
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    t = zoom[:, None] * (pose.t[:, None, :2] @ around)[:, 0] + moved
    t = torch.cat([t, pose.t[:, 2:]], dim=1)
    return images, replace(pose, roll=pose.roll + turn, t=t, scale=pose.scale * zoom[:, None])


_OTHER_SIDE = {"right": "left", "left": "right"}
_MIRRORED_KEYPOINTS = [
    KEYPOINT_NAMES.index("_".join(_OTHER_SIDE.get(word, word) for word in name.split("_"))) for name in KEYPOINT_NAMES
]


def _mirrored(pose: HeadPose, which: Tensor) -> HeadPose:
    sign = 1 - 2 * which.to(pose.t)
    across = torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], dim=1)
    kp = torch.where(which[:, None, None], pose.kp[:, _MIRRORED_KEYPOINTS], pose.kp) * across[:, None]
    return replace(pose, kp=kp, yaw=sign * pose.yaw, roll=sign * pose.roll, t=across * pose.t)
