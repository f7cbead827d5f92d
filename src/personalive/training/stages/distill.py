"""Stage ``distill``: fewer-step appearance distillation (paper, stage 2).

There is no teacher: the model runs its own few steps from noise, and the last one is corrected by the true pixels.

Letters: B samples, F frames, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.training.batch import Batch, decode, signed
from personalive.training.losses import LatentLoss, Output, PixelLoss
from personalive.training.stages.base import Context, Rngs
from personalive.training.stages.denoise import Conditions, noise_of
from personalive.training.stages.image_level import Attempt, ImageLevel, frames_of, judged


class Rollout(ImageLevel):
    """A random number of steps from noise; only the last one carries a gradient."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.distill.inference_form)

    def attempt(self, step: int | None, batch: Batch, rngs: Rngs) -> Attempt:
        """Result of the model for a batch after as many steps as each sample draws."""
        steps = [1 + int(rng.integers(len(self.levels))) for rng in rngs]
        with self.compute.autocast():
            conditions = self.condition(batch, rngs, train=step is not None)
            with torch.no_grad():
                sample, levels = self.roll(batch, rngs, conditions, steps)
            return Attempt(batch, conditions, self.predict(sample, levels, conditions), levels)

    def roll(self, batch: Batch, rngs: Rngs, conditions: Conditions, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All steps of each sample but its last: (B, C, F, h, w) and the (B, F) timesteps of the last step.

        Between steps the predicted clean latent gets fresh noise of the next level (paper), or follows the
        deterministic path (inference form).
        """
        sample, levels = self.begin(batch, rngs)
        for done in range(1, max(steps)):
            rows = [row for row, count in enumerate(steps) if count > done]
            clean = self.predict(sample[rows], levels[rows], conditions.take(rows)).clean
            lower = self.at(self.levels[-1 - done], batch)[rows]
            moved = self._lower(sample[rows], clean, levels[rows], lower, [rngs[row] for row in rows])
            sample[rows], levels[rows] = moved, lower
        return sample, levels

    def begin(self, batch: Batch, rngs: Rngs) -> tuple[Tensor, Tensor]:
        """Pure noise at the highest level (paper), or the noised portrait (inference form)."""
        if self.inference_form:
            return self.entering(batch, rngs)
        return noise_of(rngs, batch.latent.shape[1:], self.compute.device), self.at(self.levels[-1], batch)

    def _lower(
        self, sample: Tensor, clean: Tensor, levels: Tensor, lower: Tensor, rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        if self.inference_form:
            return self.schedule.move(sample, clean, levels, lower)
        return self.schedule.add_noise(clean, noise_of(rngs, sample.shape[1:], sample.device), lower)


class DistillLosses(Rollout):
    """Losses of the decoded pixels (paper), or of the latents (ours)."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        size_px = self.networks.config.image_size_px
        self.loss: PixelLoss | LatentLoss
        if self.config.loss.domain == "pixels":
            self.loss = PixelLoss(self.config, size_px, self.compute)
        else:
            self.loss = self.latent_loss()
        if self.config.loss.adversarial:
            self.adversary = self.loss

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """One output per step."""
        made = self.attempt(step, batch, rngs)
        masks = batch.masks.flatten(0, 1).float()
        clean = frames_of(made.predicted.clean)
        if isinstance(self.loss, LatentLoss):
            output = self.loss.output(clean, judged(batch, made.conditions), masks, step)
        else:
            with self.compute.autocast():
                images = decode(self.networks, clean, recompute=self.compute.recompute)
            output = self.loss.output(images, signed(batch.target.flatten(0, 1)), masks, made.levels.flatten(), step)
        yield self.with_detail(output, made)
