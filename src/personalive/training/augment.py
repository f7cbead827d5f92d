"""Changes of driving images in training, so that the motion nets read motion and not pixels (ours)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from personalive.synthetic import KEYPOINT_NAMES
from personalive.vision.keypoints import HeadPose, rotation_matrix

GAIN, SHIFT, NOISE = 0.25, 0.1, 0.02
TURN_DEG, ZOOM, PAN = 3.0, 0.04, 0.04  # of whole images: up to this much either way; pan in half sides


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
    grid = torch.nn.functional.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    images = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    t = zoom[:, None] * (pose.t[:, None, :2] @ around)[:, 0] + moved
    return images, HeadPose(
        kp=pose.kp,
        yaw=pose.yaw,
        pitch=pose.pitch,
        roll=pose.roll + turn,
        t=torch.cat([t, pose.t[:, 2:]], dim=1),
        scale=pose.scale * zoom[:, None],
    )


_OTHER_SIDE = {"right": "left", "left": "right"}
_MIRRORED_KEYPOINTS = [
    KEYPOINT_NAMES.index("_".join(_OTHER_SIDE.get(word, word) for word in name.split("_"))) for name in KEYPOINT_NAMES
]


def _mirrored(pose: HeadPose, which: Tensor) -> HeadPose:
    sign = 1 - 2 * which.to(pose.t)
    across = torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], dim=1)
    kp = torch.where(which[:, None, None], pose.kp[:, _MIRRORED_KEYPOINTS], pose.kp) * across[:, None]
    return HeadPose(
        kp=kp, yaw=sign * pose.yaw, pitch=pose.pitch, roll=sign * pose.roll, t=across * pose.t, scale=pose.scale
    )
