"""Stage 6 of the bundled model: `motion` again, with a critic of the predicted latents.

An error alone is smallest for a blur wherever the place of an edge is in doubt, and a mouth smeared over two places
is open in neither. The critic knows crisp latents from smeared ones and judges the face alone: elsewhere crisp but
misplaced edges would cost more than they please. Letters as in motion.py and critic.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

from personalive.training.critic import HALVING, Adversary, Judged
from personalive.training.loop import Losses
from personalive.training.motion import Batch, MotionStage

PLACE_WEIGHTS = (1.0, 2.0, 4.0)  # face, eyes, mouth: what the critic judges
RATIO = 0.5  # gradient that the critic adds, of the error's own, in the face
BEGIN_STEP, FULL_STEP = 40, 100  # before the first the critic only learns; from the second it counts wholly


class SharpenStage:
    """The error of stage `motion`, and what the critic asks for."""

    def __init__(self, motion: MotionStage, adversary: Adversary) -> None:
        self.motion, self.adversary = motion, adversary

    def __call__(self, step: int, done: float) -> Losses:
        made = self.motion.attempt(step, done)
        batch, clean = made.batch, made.clean
        error = self.motion.error(made).mean()
        found = self.motion.find(made)
        judged, fake = judge(batch), rearrange(clean, "b c f h w -> (b f) c h w")
        with torch.autocast(clean.device.type, torch.bfloat16):
            hinge = self.adversary.learn(judged, fake)
        loss = error + found.pop("loss", 0.0)
        losses = {"loss": loss, "error": error.detach(), "critic": hinge, **found}
        share = (step - BEGIN_STEP) / (FULL_STEP - BEGIN_STEP)
        if share <= 0:
            return losses
        (own,) = torch.autograd.grad(error, clean, retain_graph=True)
        own = rearrange(own, "b c f h w -> (b f) c h w")
        with torch.autocast(clean.device.type, torch.bfloat16):
            wanted = self.adversary.gradient(judged, fake, own, RATIO * min(1.0, share))
        pull = (wanted * fake).sum()
        return losses | {"loss": loss + pull - pull.detach()}  # its gradient is the wish; its value says nothing


def judge(batch: Batch) -> Judged:
    """A batch as the critic sees it."""
    flat = "b c f h w -> (b f) c h w"
    weights = torch.tensor(PLACE_WEIGHTS, device=batch.masks.device)
    places = (batch.masks * weights[:, None, None]).sum(dim=1, keepdim=True)
    places = F.interpolate(places, size=batch.target.shape[-1] // HALVING, mode="area")[:, 0]
    return Judged(
        real=rearrange(batch.target, flat),
        entering=rearrange(batch.entering, flat),
        motion=rearrange(batch.motion, "b f t k -> (b f) (t k)"),
        weight=places / places.mean().clamp(min=1e-6),
    )
