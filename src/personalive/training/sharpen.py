"""Stage 6 of the bundled model: `motion` again, with a discriminator ("critic") of the predicted latents (ours).

An error alone is smallest for a blur wherever the place of an edge is in doubt, and a mouth smeared over two places
is open in neither. The critic knows crisp latents from smeared ones and judges the face alone: elsewhere crisp but
misplaced edges would cost more than they please. It sees a latent beside the one that the frame entered as, and the
motion it should show, and scores every place: a patch discriminator with spectral norms and the hinge loss,
conditioned by projection.
Sources: Isola et al. 2017 (patches, pairs), Miyato et al. 2018 (spectral norms), Miyato and Koyama 2018 (projection),
Esser et al. 2021 (weight from the ratio of gradients).

Letters: N frames, C latent channels, h w latent sides, M numbers of motion, W widths.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from personalive.training.loop import Losses, World
from personalive.training.motion import Batch, MotionStage

WIDTHS = (64, 96, 128)
SLOPE = 0.2  # of the leaky rectifier
HALVING = 2  # a score speaks for as many cells a side
LR = 5e-4
BETAS = (0.0, 0.99)
EPS = 1e-9


class Judged(NamedTuple):
    """Inputs of the critic for N frames."""

    real: Tensor  # (N, C, h, w) clean latents
    entering: Tensor  # (N, C, h, w) what the frames entered as
    motion: Tensor  # (N, M)
    weight: Tensor  # (N, h/2, w/2) how much each place matters, mean 1


class LatentCritic(nn.Module):
    """Scores of places: high where the latent looks like one that was encoded."""

    def __init__(self, channels: int, motion: int, seed: int = 0) -> None:
        super().__init__()
        first, second, last = WIDTHS
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # all processes begin with the same critic
            self.first = spectral_norm(nn.Conv2d(2 * channels, first, 3, padding=1))
            self.second = spectral_norm(nn.Conv2d(first, second, 3, stride=HALVING, padding=1))
            self.third = spectral_norm(nn.Conv2d(second, last, 3, padding=1))
            self.fourth = spectral_norm(nn.Conv2d(last, last, 3, padding=1))
            self.score = spectral_norm(nn.Conv2d(last, 1, 1))
            self.shift = spectral_norm(nn.Linear(motion, last))
            self.project = spectral_norm(nn.Linear(motion, last))

    def forward(self, latents: Tensor, entering: Tensor, motion: Tensor) -> Tensor:
        """(N, C, h, w), (N, C, h, w), (N, M) -> (N, h/2, w/2), float32."""
        x = F.leaky_relu(self.first(torch.cat([latents, entering], dim=1)), SLOPE)
        x = F.leaky_relu(self.second(x), SLOPE)
        x = F.leaky_relu(self.third(x) + self.shift(motion)[:, :, None, None], SLOPE)
        x = F.leaky_relu(self.fourth(x), SLOPE)
        agreement = (x * self.project(motion)[:, :, None, None]).mean(dim=1)
        return self.score(x)[:, 0].float() + agreement.float()


class Adversary:
    """The critic, its training, and its gradient at a prediction."""

    def __init__(self, critic: LatentCritic, world: World) -> None:
        self.critic, self.world = critic, world
        self.parameters = list(critic.parameters())
        self.optimiser = torch.optim.AdamW(self.parameters, lr=LR, betas=BETAS, weight_decay=0.0)

    def learn(self, judged: Judged, fake: Tensor) -> Tensor:
        """One step of the critic on real and predicted latents; its hinge loss, before the step."""
        self.critic.requires_grad_(True)
        real = self.critic(judged.real, judged.entering, judged.motion)
        made = self.critic(fake.detach(), judged.entering, judged.motion)
        loss = (judged.weight * (F.relu(1 - real) + F.relu(1 + made))).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.world.average_gradients(self.parameters)
        self.optimiser.step()
        self.critic.requires_grad_(False)
        return loss.detach()

    def gradient(self, judged: Judged, fake: Tensor, other: Tensor, ratio: float) -> Tensor:
        """Gradient of the critic's loss at ``fake``, (N, C, h, w), without a graph.

        Its length is ``ratio`` times that of the ``other`` loss's gradient, both measured where the weight is above
        half its mean.
        """
        leaf = fake.detach().requires_grad_(True)
        loss = -(judged.weight * self.critic(leaf, judged.entering, judged.motion)).mean()
        (found,) = torch.autograd.grad(loss, leaf)
        matters = F.interpolate((judged.weight > 0.5).float()[:, None], size=fake.shape[-2:])
        return found * ratio * (other * matters).norm() / ((found * matters).norm() + EPS)


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
