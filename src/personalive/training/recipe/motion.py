"""Stage ``motion``: image-level hybrid motion (paper, stage 1): one denoising step from a random level.

Letters: B samples, C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.training.recipe.denoise import noise_of
from personalive.training.recipe.image_level import ImageLevel
from personalive.training.recipe.losses import masked_errors
from personalive.training.recipe.material import Material
from personalive.training.recipe.stage import Output, Setting


class MotionLosses:
    """Squared error of the predicted clean latent, whole and inside the boxes of face, eyes and mouth."""

    updates, discriminator = 1, None

    def __init__(self, setting: Setting) -> None:
        self.config = setting.config
        self.image = ImageLevel(setting, follow=setting.config.motion.inference_form)
        self.arithmetic = setting.arithmetic

    def losses(self, step: int, rows: Sequence[int]) -> Iterator[Output]:
        """One output per step."""
        yield Output(self._losses(self.image.material(step, rows), train=True))

    def held_out(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The same error on fixed samples at fixed levels."""
        return self._losses(self.image.material(None, rows), train=False)

    def discriminator_loss(self, output: Output) -> dict[str, Tensor]:
        """Nothing: this stage has none."""
        return {}

    def sheet(self, rows: int) -> np.ndarray:
        """See ``ImageLevel.sheet``."""
        return self.image.sheet(rows)

    def _losses(self, material: Material, train: bool) -> dict[str, Tensor]:
        with self.arithmetic.autocast():
            conditions = self.image.condition(material, train)
            latents, levels = self.noised(material)
            clean = self.image.predict(latents, levels, conditions)
        errors = masked_errors(clean[:, :, 0], material.latent[:, :, 0], material.masks[:, 0])
        return {
            "loss": errors.weighted(self.config.loss),
            "latent": errors.whole.detach(),
            "face": errors.face.detach(),
            "eyes_and_mouth": errors.eyes_and_mouth.detach(),
        }

    def noised(self, material: Material) -> tuple[Tensor, Tensor]:
        """The inputs: (B, C, 1, h, w) and their (B, 1) timesteps.

        Published: the truth with noise of a uniform timestep below one past the highest level, part of which
        each channel shares. Inference form: where a stream that began with the noised portrait would be at one
        of the model's levels if it had predicted the truth so far.
        """
        if self.config.motion.inference_form:
            picked = [int(rng.choice(self.image.levels)) for rng in material.rngs]
            sample, top = self.image.entering(material)
            levels = torch.tensor(picked, device=self.arithmetic.device)[:, None]
            return self.image.schedule.move(sample, material.latent, top, levels), levels
        picked = [int(rng.integers(self.image.levels[-1] + 1)) for rng in material.rngs]
        levels = torch.tensor(picked, device=self.arithmetic.device)[:, None]
        noise = noise_of(material.rngs, material.latent.shape[1:], self.arithmetic.device)
        shared = noise_of(material.rngs, (material.latent.shape[1], 1, 1, 1), self.arithmetic.device)
        noise = noise + self.config.motion.noise_offset * shared
        return self.image.schedule.add_noise(material.latent, noise, levels), levels
