"""The loss on decoded pixels that stages distill and stream share (paper, stage 2).

Letters: N images, S their side, G mask cells per side.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from personalive.training.recipe.discriminator import Discriminator, discriminator_loss, generator_loss
from personalive.training.recipe.losses import masked_errors
from personalive.training.recipe.perceptual import FilterDistance, PerceptualLoss, load_perceptual
from personalive.training.recipe.stage import Output, Setting


class PixelLoss:
    """Squared error, whole and masked, perceptual distance, and the adversarial term."""

    def __init__(self, setting: Setting) -> None:
        config, device = setting.config, setting.arithmetic.device
        self.config, self.arithmetic = config, setting.arithmetic
        folder = config.loss.lpips
        self.perceptual: PerceptualLoss = (
            load_perceptual(Path(folder).expanduser(), device) if folder else FilterDistance().to(device)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.discriminator = Discriminator(setting.networks.config.image_size_px, config.discriminator).to(device)

    def output(self, made: Tensor, real: Tensor, masks: Tensor, levels: Tensor, step: int | None) -> Output:
        """Losses of ``made`` (N, 3, S, S) against ``real``, under masks (N, 3, G, G), at (N,) timesteps.

        ``step`` None is held out: without the adversarial term, whose scale changes while it trains.
        """
        weights = self.config.loss
        errors = masked_errors(made, real, masks)
        perceptual = self.perceptual(made, real).mean()
        loss = errors.weighted(weights, whole=weights.pixel) + weights.perceptual * perceptual
        found = {"pixel": errors.whole.detach(), "perceptual": perceptual.detach()}
        if step is not None and step >= self.config.discriminator.generator_from_step:
            adversarial = generator_loss(self._verdict(made, levels))
            loss = loss + weights.adversarial * adversarial
            found["adversarial"] = adversarial.detach()
        return Output({"loss": loss, **found}, made.detach(), real.detach(), levels)

    def discriminator_loss(self, output: Output) -> dict[str, Tensor]:
        """Losses that the discriminator minimises; "discriminator" carries the gradient."""
        assert output.made is not None and output.real is not None and output.levels is not None
        made, real = self._verdict(output.made, output.levels), self._verdict(output.real, output.levels)
        return {
            "discriminator": discriminator_loss(made, real),
            "verdict_made": made.detach().mean(),
            "verdict_real": real.detach().mean(),
        }

    def _verdict(self, images: Tensor, levels: Tensor) -> Tensor:
        with self.arithmetic.autocast():
            return self.discriminator(images, levels)
