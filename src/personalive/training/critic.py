"""Discriminator ("critic") of predicted latents, which keeps the bundled model from blurring in doubt (ours).

It sees a latent beside the one that the frame entered as, and the motion it should show, and scores every place. The
critic is a patch discriminator with spectral norms and the hinge loss, conditioned by projection.
Sources: Isola et al. 2017 (patches, pairs), Miyato et al. 2018 (spectral norms), Miyato and Koyama 2018 (projection),
Esser et al. 2021 (weight from the ratio of gradients).

Letters: N frames, C latent channels, h w latent sides, M numbers of motion, W widths.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from personalive.training.world import World

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
