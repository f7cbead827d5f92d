"""Stage ``distill``: fewer-step appearance distillation (paper, stage 2).

There is no teacher: the model runs its own few steps from noise, and the last one is corrected by the true pixels.

Letters: B samples, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.training.recipe.denoise import Conditions, noise_of
from personalive.training.recipe.image_level import ImageLevel
from personalive.training.recipe.material import Material, decode
from personalive.training.recipe.pixels import PixelLoss
from personalive.training.recipe.stage import Output, Setting


class DistillLosses:
    """A random number of steps from noise; only the last one carries a gradient."""

    updates = 1

    def __init__(self, setting: Setting) -> None:
        self.setting, self.inference_form = setting, setting.config.distill.inference_form
        self.image = ImageLevel(setting, follow=self.inference_form)
        self.pixels = PixelLoss(setting)
        self.discriminator = self.pixels.discriminator

    def losses(self, step: int, rows: Sequence[int]) -> Iterator[Output]:
        """One output per step."""
        yield self._output(self.image.material(step, rows), step)

    def held_out(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The same loss on fixed samples with fixed numbers of steps, without the adversarial term."""
        return self._output(self.image.material(None, rows), None).losses

    def discriminator_loss(self, output: Output) -> dict[str, Tensor]:
        """See ``PixelLoss``."""
        return self.pixels.discriminator_loss(output)

    def sheet(self, rows: int) -> np.ndarray:
        """See ``ImageLevel.sheet``."""
        return self.image.sheet(rows)

    def _output(self, material: Material, step: int | None) -> Output:
        arithmetic = self.setting.arithmetic
        steps = [1 + int(rng.integers(len(self.image.levels))) for rng in material.rngs]
        with arithmetic.autocast():
            conditions = self.image.condition(material, train=step is not None)
            with torch.no_grad():
                sample, levels = self.roll(material, conditions, steps)
            clean = self.image.predict(sample, levels, conditions)
            made = decode(self.setting.networks, clean[:, :, 0], recompute=arithmetic.recompute)
        return self.pixels.output(made, material.target[:, 0], material.masks[:, 0], levels[:, 0], step)

    def roll(self, material: Material, conditions: Conditions, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All steps of each sample but its last: (B, C, 1, h, w) and the (B, 1) timesteps of the last step.

        Between steps the predicted clean latent gets fresh noise of the next level (paper), or follows the
        deterministic path (inference form).
        """
        sample, levels = self.begin(material)
        for done in range(1, max(steps)):
            rows = [row for row, count in enumerate(steps) if count > done]
            clean = self.image.predict(sample[rows], levels[rows], conditions.take(rows))
            lower = self.image.at(self.image.levels[-1 - done], len(rows))
            moved = self._lower(sample[rows], clean, levels[rows], lower, [material.rngs[row] for row in rows])
            sample[rows], levels[rows] = moved, lower
        return sample, levels

    def begin(self, material: Material) -> tuple[Tensor, Tensor]:
        """Pure noise at the highest level (paper), or the noised portrait (inference form)."""
        if self.inference_form:
            return self.image.entering(material)
        top = self.image.at(self.image.levels[-1], len(material.rngs))
        return noise_of(material.rngs, material.latent.shape[1:], self.setting.arithmetic.device), top

    def _lower(
        self, sample: Tensor, clean: Tensor, levels: Tensor, lower: Tensor, rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        if self.inference_form:
            return self.image.schedule.move(sample, clean, levels, lower)
        noise = noise_of(rngs, sample.shape[1:], sample.device)
        return self.image.schedule.add_noise(clean, noise, lower)
