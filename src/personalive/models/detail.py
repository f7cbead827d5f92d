"""Detail head: finds a finished frame's detail in the portrait and blends it in (ours).

The denoising net knows where everything has gone, but its latents pass through an autoencoder and blur what was in
doubt. This head takes the same features, corrects the geometric movement of the portrait, and weighs pixel by pixel
the portrait's own detail, so moved, against the decoded image.

Letters: N frames, C0 channels of the denoiser's first level, h w latent sides, S image side, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from personalive.config import DetailConfig

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
