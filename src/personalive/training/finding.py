"""Task of the detail head in stages `motion` and `sharpen`: to find the frame's content in the portrait (ours).

Two errors: of the portrait's pixels where the flow looks for them, against the frame's; and of the flow itself,
against optical flow from the portrait moved by geometry to the frame, which reaches further than pixels do.
Letters: N frames, C0 features, h w latent sides, S image side.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from personalive.models.detail import HALVING, DetailHead, moved_portrait
from personalive.training.cache import FrameCache
from personalive.training.data import RenderedSet
from personalive.vision.keypoints import HeadPose, as_held_by
from personalive.vision.warps import add_flow, sample

FLOW_WEIGHT = 3.0  # of the flow's error in half image sides, beside the pixels' in -1..1
DOUBT = 0.004  # half image sides below which the flow's error is nearly square
PLACE_WEIGHTS = (2.0, 4.0, 4.0)  # face, eyes, mouth: on top of 1 everywhere


class Finding:
    """Images and flows of the training set, and the two errors."""

    def __init__(self, head: DetailHead, data: RenderedSet, cache: FrameCache) -> None:
        self.head, self.cache, self.flow = head, cache, cache.known("flow")
        self.device = next(head.parameters()).device
        self.images = data.images.reshape(-1, *data.images.shape[3:])

    def errors(
        self, features: Tensor, rows: np.ndarray, portraits: np.ndarray, whiches: np.ndarray, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean weighted errors of the found pixels (-1..1) and of the flow (half image sides).

        Args:
            features: (N, C0, h, w).
            rows, portraits: (N,) rows of the cache: the frames, and the images they are looked for in.
            whiches: (N,) which of a person's references that is.
            masks: (N, 3, g, g) share of face, eyes and mouth in each cell, 0..1.
        """
        device = features.device
        frames, shown = (F.avg_pool2d(self.pictures(some, device), HALVING) for some in (rows, portraits))
        held, wanted = self.poses(rows, portraits)
        field, moved, shift = moved_portrait(shown, held, wanted, features.shape[-1])
        with torch.autocast(device.type, torch.bfloat16):
            _, flow = self.head.flow_residual(features, moved, shift)
        target = torch.from_numpy(np.stack([self.flow[k] for k in zip(rows, whiches, strict=True)])).to(flow)
        weight = place_weight(masks)
        missed = ((flow - target).square().sum(dim=1, keepdim=True) + DOUBT**2).sqrt() - DOUBT
        pixels = (sample(shown, add_flow(field, flow)) - frames).abs()
        return (_like(weight, pixels) * pixels).mean(), (_like(weight, missed) * missed).mean()

    def pictures(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """(N, 3, S, S) in [-1, 1]."""
        pixels = torch.from_numpy(np.stack([self.images[row] for row in rows])).to(device)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1

    def poses(self, rows: np.ndarray, portraits: np.ndarray) -> tuple[HeadPose, HeadPose]:
        """N poses of the portraits, and of the frames on them."""
        held = self.cache.pose[torch.from_numpy(portraits)].to(self.device)
        return held, as_held_by(held, self.cache.pose[torch.from_numpy(rows)].to(self.device))


def place_weight(masks: Tensor) -> Tensor:
    """(N, 3, g, g) share of face, eyes and mouth in each cell, 0..1 -> (N, 1, g, g), mean 1."""
    weight = 1 + sum(w * masks[:, i : i + 1] for i, w in enumerate(PLACE_WEIGHTS))
    weight = torch.as_tensor(weight)
    return weight / weight.mean()


def _like(weight: Tensor, picture: Tensor) -> Tensor:
    """Cell weights at an image's side."""
    return F.interpolate(weight, size=picture.shape[-2:], mode="nearest")
