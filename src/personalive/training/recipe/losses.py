"""Squared errors, also inside the boxes that people look at.

Letters: N images, C channels, H W their sides, G mask cells per side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from personalive.training.recipe.settings import LossConfig


class Errors(NamedTuple):
    """Mean squared errors over all values; outside a mask an error counts as zero."""

    whole: Tensor
    face: Tensor
    eyes_and_mouth: Tensor

    def weighted(self, config: LossConfig, whole: float = 1.0) -> Tensor:
        """The sum that is minimised."""
        return whole * self.whole + config.face * self.face + config.eyes_and_mouth * self.eyes_and_mouth


def masked_errors(prediction: Tensor, target: Tensor, masks: Tensor) -> Errors:
    """Errors of (N, C, H, W) under masks (N, 3, G, G) of face, eyes and mouth in [0, 1] (paper)."""
    error = (prediction.float() - target.float()).square()
    masks = fit_masks(masks, prediction.shape[-2:])
    eyes_and_mouth = masks[:, 1:].amax(dim=1, keepdim=True)
    return Errors(error.mean(), (error * masks[:, :1]).mean(), (error * eyes_and_mouth).mean())


def fit_masks(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, 3, G, G) -> (N, 3, H, W): averaged where cells are joined, repeated where they are split."""
    if masks.shape[-1] > size[-1]:
        return F.adaptive_avg_pool2d(masks, (size[0], size[1]))
    return F.interpolate(masks, size=size, mode="nearest")
