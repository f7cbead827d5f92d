"""Stage ``distill``: fewer-step appearance distillation (paper, stage 2).

There is no teacher: the model runs its own few steps from noise, and the last one is corrected by the true pixels.

Letters: B samples, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.training.recipe.denoise import Conditions, noise_of
from personalive.training.recipe.image_level import ImageLevel
from personalive.training.recipe.losses import Output, PixelLoss
from personalive.training.recipe.material import Material, decode
from personalive.training.recipe.stage import Setting


class DistillLosses(ImageLevel):
    """A random number of steps from noise; only the last one carries a gradient."""

    pixels: PixelLoss

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, setting.config.distill.inference_form)
        self.pixels = PixelLoss(setting.config, setting.networks.config.image_size_px, setting.arithmetic)

    def output(self, material: Material, step: int | None) -> Output:
        """Losses of the decoded pixels after as many steps as each sample draws."""
        steps = [1 + int(rng.integers(len(self.levels))) for rng in material.rngs]
        with self.arithmetic.autocast():
            conditions = self.condition(material, train=step is not None)
            with torch.no_grad():
                sample, levels = self.roll(material, conditions, steps)
            clean = self.predict(sample, levels, conditions)
            made = decode(self.networks, clean[:, :, 0], recompute=self.arithmetic.recompute)
        return self.pixels.output(made, material.target[:, 0], material.masks[:, 0], levels[:, 0], step)

    def roll(self, material: Material, conditions: Conditions, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All steps of each sample but its last: (B, C, 1, h, w) and the (B, 1) timesteps of the last step.

        Between steps the predicted clean latent gets fresh noise of the next level (paper), or follows the
        deterministic path (inference form).
        """
        sample, levels = self.begin(material)
        for done in range(1, max(steps)):
            rows = [row for row, count in enumerate(steps) if count > done]
            clean = self.predict(sample[rows], levels[rows], conditions.take(rows))
            lower = self.at(self.levels[-1 - done], len(rows))
            moved = self._lower(sample[rows], clean, levels[rows], lower, [material.rngs[row] for row in rows])
            sample[rows], levels[rows] = moved, lower
        return sample, levels

    def begin(self, material: Material) -> tuple[Tensor, Tensor]:
        """Pure noise at the highest level (paper), or the noised portrait (inference form)."""
        if self.inference_form:
            return self.entering(material)
        top = self.at(self.levels[-1], len(material.rngs))
        return noise_of(material.rngs, material.latent.shape[1:], self.arithmetic.device), top

    def _lower(
        self, sample: Tensor, clean: Tensor, levels: Tensor, lower: Tensor, rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        if self.inference_form:
            return self.schedule.move(sample, clean, levels, lower)
        return self.schedule.add_noise(clean, noise_of(rngs, sample.shape[1:], sample.device), lower)
