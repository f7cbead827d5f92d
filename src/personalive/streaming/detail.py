"""The portrait's own detail in finished frames: found by the detail head, blended with what was decoded (ours).

Letters: N frames, C0 features, h w latent sides, S picture side. Everything but the last look-up happens at half the
picture's side, where fields are computed in any case.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from personalive.vision.fields import corrected, enlarged, sample, shift_of
from personalive.vision.keypoints import HeadPose
from personalive.vision.moved_head import moving_field

HALVING = 2


class Detailer(Protocol):
    """A ``DetailHead``, or a backend that runs one."""

    def correction(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """As ``DetailHead.correction``."""
        ...

    def trust(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """As ``DetailHead.trust``."""
        ...


def moved_portrait(shown: Tensor, held: HeadPose, wanted: HeadPose, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the detail head starts from.

    Args:
        shown: (N, 3, S/2, S/2) portraits at half their side.
        held, wanted: N poses, of the portraits and of the frames.
        side: of the latents.

    Returns:
        The movement's field (N, S/2, S/2, 2), the portraits moved by it (N, 3, S/2, S/2), and how far it moves,
        (N, 2, h, w) in half picture sides.
    """
    field = moving_field(held, wanted, shown.shape[-1])
    return field, sample(shown, field), shift_of(field, side)


def add_detail(
    head: Detailer, decoded: Tensor, features: Tensor, portrait: Tensor, held: HeadPose, wanted: HeadPose
) -> Tensor:
    """Decoded frames with the portrait's own detail where it was found.

    Args:
        decoded: (N, 3, S, S) in [-1, 1].
        features: (N, C0, h, w), the denoiser's last ones of these frames.
        portrait: (1, 3, S, S) in [-1, 1].
        held: its pose, one row.
        wanted: N poses of the frames, on the portrait.

    Returns:
        (N, 3, S, S) in the dtype of ``decoded``.
    """
    found, hidden = find(head, features, portrait, HeadPose.cat([held] * len(decoded)), wanted)
    trust = head.trust(decoded, found, hidden)
    return (decoded.float() + trust * (found.float() - decoded.float())).to(decoded.dtype)


def find(
    head: Detailer, features: Tensor, portrait: Tensor, held: HeadPose, wanted: HeadPose
) -> tuple[Tensor, Tensor]:
    """The portrait's pixels where the frames' content was found, (N, 3, S, S), and the head's hidden features."""
    count, side = len(features), portrait.shape[-1]
    portraits = portrait.expand(count, -1, -1, -1)
    small = F.avg_pool2d(portraits, HALVING)
    field, moved, shift = moved_portrait(small, held, wanted, features.shape[-1])
    hidden, flow = head.correction(features, moved.to(features.dtype), shift.to(features.dtype))
    return sample(portraits, enlarged(corrected(field, flow), side)), hidden
