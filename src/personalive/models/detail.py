"""Detail head: finds a finished frame's detail in the portrait and blends it in (ours).

The denoising net knows where everything has gone, but its latents pass through an autoencoder and blur what was in
doubt. This head takes the same features, corrects the geometric movement of the portrait, and weighs pixel by pixel
the portrait's own detail, so moved, against the decoded image.

Letters: N frames, C0 channels of the denoiser's first level, h w latent sides, S image side, W width.

``add_detail`` is its use on finished frames. Everything but the last look-up happens at half the image's side, where
fields are computed in any case.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.config import DetailConfig
from personalive.vision.keypoints import HeadPose
from personalive.vision.warps import add_flow, enlarged, moving_field, sample, shift_of

GROUPS = 4  # of the norms
CELL_PX = 4  # pixels of a side that are taken together: of half images for the flow, of whole ones for the blend
SHIFT_GAIN = 4.0  # shifts are small parts of the image side: brought near 1
FLOW_GAIN = 0.1  # and back


class DetailHead(nn.Module):
    """A correction of the flow at the latent's resolution, and a blend of two images."""

    def __init__(self, config: DetailConfig, features: int) -> None:
        super().__init__()
        width, blend, patch = config.width, config.blend_width, 3 * CELL_PX**2
        self.conv_in = nn.Conv2d(features + patch + 2, width, 3, padding=1)
        self.blocks = nn.ModuleList([_Block(width) for _ in range(config.blocks)])
        self.norm = nn.GroupNorm(GROUPS, width)
        self.flow = nn.Conv2d(width, 2, 3, padding=1)
        self.blend = nn.ModuleDict(
            {
                "pictures": nn.Conv2d(3 * patch, blend, 1),
                "hidden": nn.Conv2d(width, blend, 1),
                "middle": nn.Conv2d(blend, blend, 3, padding=1),
                "mask": nn.Conv2d(blend, CELL_PX**2, 3, padding=1),
            }
        )
        for last in (self.flow, self.blend["mask"]):  # begins as no correction, and as the mean of both images
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def flow_residual(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Flow of the frames' content beyond ``shift``.

        Args:
            features: (N, C0, h, w), the denoiser's last ones.
            moved: (N, 3, S/2, S/2) in [-1, 1], the portrait moved by geometry.
            shift: (N, 2, h, w) x, y of that movement in half image sides.

        Returns:
            Hidden features (N, W, h, w), and the correction (N, 2, h, w) in half image sides, float32.
        """
        patches = F.pixel_unshuffle(moved, CELL_PX)
        x = self.conv_in(torch.cat([features, patches, SHIFT_GAIN * shift], dim=1))
        for block in self.blocks:
            x = block(x)
        x = F.silu(self.norm(x))
        return x, FLOW_GAIN * self.flow(x).float()

    def blend_mask(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """Share of ``found`` in each pixel, the rest being ``decoded``: (N, 1, S, S) in 0..1, float32.

        Args:
            decoded: (N, 3, S, S) in [-1, 1].
            found: (N, 3, S, S) in [-1, 1], the portrait's pixels where the flow looks for them.
            hidden: (N, W, h, w) as ``flow_residual`` gave them.
        """
        a, b = F.pixel_unshuffle(decoded, CELL_PX), F.pixel_unshuffle(found, CELL_PX)
        x = self.blend["pictures"](torch.cat([a, b, (a - b).abs()], dim=1))
        x = x + F.interpolate(self.blend["hidden"](hidden), size=x.shape[-2:], mode="nearest")
        x = F.silu(self.blend["middle"](F.silu(x)))
        return torch.sigmoid(F.pixel_shuffle(self.blend["mask"](x).float(), CELL_PX))


class _Block(nn.Module):
    """A residual block that begins as no change."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, W, h, w) -> (N, W, h, w)."""
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


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
