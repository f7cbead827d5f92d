"""The portrait's own detail in finished frames: found by the detail head, blended with what was decoded (ours).

Letters: N frames, C0 features, h w latent sides, S image side. Everything but the last look-up happens at half the
image's side, where fields are computed in any case.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import add_flow, enlarged, moving_field, sample, shift_of

HALVING = 2


class Detailer(Protocol):
    """A ``DetailHead``, or a backend that runs one."""

    def flow_residual(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """As ``DetailHead.flow_residual``."""
        ...

    def blend_mask(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """As ``DetailHead.blend_mask``."""
        ...


def moved_portrait(shown: Tensor, source: HeadPose, target: HeadPose, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the detail head by geometry alone.

    Args:
        shown: (N, 3, S/2, S/2) portraits at half their side.
        source, target: N poses, of the portraits and of the frames.
        side: of the latents.

    Returns:
        The movement's field (N, S/2, S/2, 2), the portraits moved by it (N, 3, S/2, S/2), and how far it moves,
        (N, 2, h, w) in half image sides.
    """
    field = moving_field(source, target, shown.shape[-1])
    return field, sample(shown, field), shift_of(field, side)


def add_detail(
    head: Detailer, decoded: Tensor, features: Tensor, portrait: Tensor, source: HeadPose, target: HeadPose
) -> Tensor:
    """Decoded frames with the portrait's own detail where it was found.

    Args:
        decoded: (N, 3, S, S) in [-1, 1].
        features: (N, C0, h, w), the denoiser's last ones of these frames.
        portrait: (1, 3, S, S) in [-1, 1].
        source: its pose, one row.
        target: N poses of the frames, on the portrait.

    Returns:
        (N, 3, S, S) in the dtype of ``decoded``.
    """
    found, hidden = find(head, features, portrait, HeadPose.cat([source] * len(decoded)), target)
    mask = head.blend_mask(decoded, found, hidden)
    return (decoded.float() + mask * (found.float() - decoded.float())).to(decoded.dtype)


def find(
    head: Detailer, features: Tensor, portrait: Tensor, source: HeadPose, target: HeadPose
) -> tuple[Tensor, Tensor]:
    """The portrait's pixels where the frames' content was found, (N, 3, S, S), and the head's hidden features."""
    count, side = len(features), portrait.shape[-1]
    portraits = portrait.expand(count, -1, -1, -1)
    small = F.avg_pool2d(portraits, HALVING)
    field, moved, shift = moved_portrait(small, source, target, features.shape[-1])
    hidden, flow = head.flow_residual(features, moved.to(features.dtype), shift.to(features.dtype))
    return sample(portraits, enlarged(add_flow(field, flow), side)), hidden
