"""Stage ``motion``: image-level hybrid motion (paper, stage 1): one denoising step from a random level.

Letters: B samples, F frames, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from personalive.training.batch import Batch
from personalive.training.losses import Output
from personalive.training.stages.base import Context, Rngs
from personalive.training.stages.denoise import noise_of
from personalive.training.stages.image_level import Attempt, ImageLevel, frames_of


class MotionLosses(ImageLevel):
    """Error of the predicted clean latent, whole and inside the boxes of face, eyes and mouth."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.config.motion.inference_form)
        self.loss = self.latent_loss()

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """Errors at the levels that ``noised`` draws."""
        with self.compute.autocast():
            conditions = self.condition(batch, rngs, train=step is not None)
            latents, levels = self.noised(batch, rngs)
            predicted = self.predict(latents, levels, conditions)
            made = Attempt(batch, conditions, predicted, levels)
        masks = batch.masks.flatten(0, 1).float()
        errors = self.loss.errors(frames_of(predicted.clean), frames_of(batch.latent), masks)
        parts = {"latent": errors.whole, "face": errors.face, "eyes_and_mouth": errors.eyes_and_mouth}
        loss = errors.weighted(self.config.loss)
        yield self.with_detail(Output({"loss": loss, **{name: part.detach() for name, part in parts.items()}}), made)

    def noised(self, batch: Batch, rngs: Rngs) -> tuple[Tensor, Tensor]:
        """Inputs of the denoiser: (B, C, F, h, w) and their (B, F) timesteps.

        Published: the truth with noise of a uniform timestep below one past the highest level, part of which
        each channel shares. Inference form: where a stream that began with the noised portrait would be at one
        of the model's levels if it had predicted the truth so far.
        """
        device, count = self.compute.device, batch.target.shape[1]
        if self.inference_form:
            levels = self._levels(rngs, count).to(device)
            sample, top = self.entering(batch, rngs)
            return self.schedule.move(sample, batch.latent, top, levels), levels
        picked = np.stack([rng.integers(self.levels[-1] + 1, size=count) for rng in rngs])
        levels = torch.from_numpy(picked).to(device)
        noise = noise_of(rngs, batch.latent.shape[1:], device)
        shared = noise_of(rngs, (batch.latent.shape[1], 1, 1, 1), device)
        noise = noise + self.config.motion.noise_offset * shared
        return self.schedule.add_noise(batch.latent, noise, levels), levels

    def _levels(self, rngs: Rngs, count: int) -> Tensor:
        """(B, F) levels: the highest, where all of the motion is still to be made, by its own share."""
        top, others = self.config.motion.top_share, len(self.levels) - 1
        chances = [(1 - top) / others] * others + [top] if others else [1.0]
        return torch.from_numpy(np.stack([rng.choice(self.levels, size=count, p=chances) for rng in rngs]))
