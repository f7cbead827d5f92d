"""Stage ``motion``: image-level hybrid motion (paper, stage 1): one denoising step from a random level.

Letters: B samples, C latent channels, h w latent sides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from personalive.training.recipe.denoise import noise_of
from personalive.training.recipe.image_level import ImageLevel
from personalive.training.recipe.losses import Output, masked_errors
from personalive.training.recipe.material import Material
from personalive.training.recipe.stage import Setting


class MotionLosses(ImageLevel):
    """Squared error of the predicted clean latent, whole and inside the boxes of face, eyes and mouth."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, setting.config.motion.inference_form)

    def output(self, material: Material, step: int | None) -> Output:
        """Errors at the levels that ``noised`` draws."""
        with self.arithmetic.autocast():
            conditions = self.condition(material, train=step is not None)
            latents, levels = self.noised(material)
            clean = self.predict(latents, levels, conditions)
        errors = masked_errors(clean[:, :, 0], material.latent[:, :, 0], material.masks[:, 0])
        parts = {"latent": errors.whole, "face": errors.face, "eyes_and_mouth": errors.eyes_and_mouth}
        loss = errors.weighted(self.setting.config.loss)
        return Output({"loss": loss, **{name: part.detach() for name, part in parts.items()}})

    def noised(self, material: Material) -> tuple[Tensor, Tensor]:
        """The inputs: (B, C, 1, h, w) and their (B, 1) timesteps.

        Published: the truth with noise of a uniform timestep below one past the highest level, part of which
        each channel shares. Inference form: where a stream that began with the noised portrait would be at one
        of the model's levels if it had predicted the truth so far.
        """
        device = self.arithmetic.device
        if self.inference_form:
            picked = [int(rng.choice(self.levels)) for rng in material.rngs]
            sample, top = self.entering(material)
            levels = torch.tensor(picked, device=device)[:, None]
            return self.schedule.move(sample, material.latent, top, levels), levels
        picked = [int(rng.integers(self.levels[-1] + 1)) for rng in material.rngs]
        levels = torch.tensor(picked, device=device)[:, None]
        noise = noise_of(material.rngs, material.latent.shape[1:], device)
        shared = noise_of(material.rngs, (material.latent.shape[1], 1, 1, 1), device)
        noise = noise + self.setting.config.motion.noise_offset * shared
        return self.schedule.add_noise(material.latent, noise, levels), levels
