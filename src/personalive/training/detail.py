"""Stage 7 of the bundled model: the detail head alone, on finished frames (ours).

The other networks are as the stages before left them; frames come out of as many denoising passes as the
step draws, and the decoder's. Letters: N frames, S image side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from personalive.models.detail import DetailHead, find
from personalive.models.networks import Networks
from personalive.training.finding import Finding, place_weight
from personalive.training.loop import Losses
from personalive.training.motion import MotionStage

FOUND_WEIGHT = 0.5  # of the found pixels' own error: where the blend shuns them they still have to learn
SCALES = 3  # sides at which images are compared, each half of the one before


class DetailStage:
    """Weighted errors of the blended frames, and of the pixels found for them."""

    def __init__(self, motion: MotionStage, finding: Finding, networks: Networks) -> None:
        self.motion, self.finding, self.vae = motion, finding, networks.vae

    def __call__(self, step: int, done: float) -> Losses:
        head: DetailHead = self.finding.head
        with torch.no_grad():
            made = self.motion.attempt(step, 1.0)  # from what the model itself makes of a frame
            batch, device = made.batch, made.clean.device
            frames, portraits = (self.finding.pictures(some, device) for some in (batch.rows, batch.portraits))
            with torch.autocast(device.type, torch.bfloat16):
                latents = rearrange(made.clean, "b c f h w -> (b f) c h w") / self.vae.config.scaling_factor
                decoded = self.vae.decode(latents).sample.float()
        with torch.autocast(device.type, torch.bfloat16):
            found, hidden = find(head, made.features, portraits, *self.finding.poses(batch.rows, batch.portraits))
            trust = head.blend_mask(decoded, found, hidden)
        blended = decoded + trust * (found - decoded)
        weight = place_weight(batch.masks)
        error, found_error = compare(blended, frames, weight), compare(found, frames, weight)
        return {
            "loss": error + FOUND_WEIGHT * found_error,
            "blended": error.detach(),
            "found": found_error.detach(),
            "decoded": compare(decoded, frames, weight),
            "trust": trust.detach().mean(),
        }


def compare(made: Tensor, frames: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted absolute difference of images (N, 3, S, S) at several sides; ``weight`` is (N, 1, g, g)."""
    total = made.new_zeros(())
    for _ in range(SCALES):
        total = total + (F.interpolate(weight, size=made.shape[-2:], mode="nearest") * (made - frames).abs()).mean()
        made, frames = F.avg_pool2d(made, 2), F.avg_pool2d(frames, 2)
    return total / SCALES
