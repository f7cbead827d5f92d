"""Task of the detail head in stages motion and distill: to find the frame's content in the portrait (ours).

Two errors: of the portrait's pixels where the flow looks for them, against the frame's; and of the flow itself,
against optical flow from the frame to the portrait moved by geometry, which reaches further than pixels do.
Letters: N frames, C0 features, h w latent sides, S image side, G mask cells per side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.models.detail import HALVING, DetailHead, moved_portrait
from personalive.training.batch import Batch, signed, unpack_poses
from personalive.training.losses import fit_masks
from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import add_flow, sample

FLOW_WEIGHT = 3.0  # of the flow's error in half image sides, beside the pixels' in -1..1
ROBUST_FROM = 0.004  # half image sides below which the flow's error is nearly square
PLACE_WEIGHTS = (2.0, 4.0, 4.0)  # face, eyes, mouth: on top of 1 everywhere


def finding_errors(head: DetailHead, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean weighted errors of the found pixels (-1..1) and, times its weight, of the flow (half image sides).

    Args:
        features: (N, C0, h, w) of the batch's frames, one after another.
    """
    assert batch.flow is not None
    portraits, source, target = finding_inputs(batch)
    frames = F.avg_pool2d(signed(batch.target.flatten(0, 1)), HALVING)
    shown = F.avg_pool2d(portraits, HALVING)
    field, moved, shift = moved_portrait(shown, source, target, features.shape[-1])
    _, flow = head.flow_residual(features, moved.to(features.dtype), shift.to(features.dtype))
    missed = (flow - batch.flow.flatten(0, 1)).square().sum(dim=1, keepdim=True)
    missed = (missed + ROBUST_FROM**2).sqrt() - ROBUST_FROM
    pixels = (sample(shown, add_flow(field, flow)) - frames).abs()
    masks = batch.masks.flatten(0, 1).float()
    return (place_weight(masks, pixels) * pixels).mean(), FLOW_WEIGHT * (place_weight(masks, missed) * missed).mean()


def finding_inputs(batch: Batch) -> tuple[Tensor, HeadPose, HeadPose]:
    """N portraits (N, 3, S, S) in [-1, 1], their poses, and those of the frames on them."""
    assert batch.reference is not None and batch.head is not None and batch.poses is not None
    count = batch.target.shape[1]
    portraits = signed(batch.reference).repeat_interleave(count, dim=0)
    return (
        portraits,
        unpack_poses(batch.head.repeat_interleave(count, dim=0)),
        unpack_poses(batch.poses.flatten(0, 1)),
    )


def place_weight(masks: Tensor, like: Tensor) -> Tensor:
    """(N, 3, G, G) masks of face, eyes and mouth -> (N, 1, H, W) of an image (N, C, H, W), mean 1."""
    weights = torch.tensor(PLACE_WEIGHTS, device=masks.device)[:, None, None]
    weight = 1 + (weights * fit_masks(masks, like.shape[-2:])).sum(dim=1, keepdim=True)
    return weight / weight.mean()
