"""Base of both image-level stages: one frame per sample, temporal modules left out.

Letters: B samples, C latent channels, h w latent sides, S image side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.training.recipe.denoise import Conditions, condition, noise_of, predict_clean
from personalive.training.recipe.journal import page, pictures
from personalive.training.recipe.losses import Output
from personalive.training.recipe.material import Material, decode
from personalive.training.recipe.stage import Setting, StageLosses


class ImageLevel(StageLosses):
    """Pairs to material, conditions and predictions. A stage adds ``output``, its losses."""

    def __init__(self, setting: Setting, inference_form: bool) -> None:
        """``inference_form``: heads are placed and frames begun as in use, not as published."""
        self.setting, self.inference_form = setting, inference_form
        self.networks, self.schedule = setting.networks, setting.schedule
        self.loader, self.arithmetic = setting.loader, setting.arithmetic
        self.levels = setting.networks.config.schedule.levels

    def losses(self, step: int, rows: Sequence[int]) -> Iterator[Output]:
        """One output per step."""
        yield self.output(self.material(step, rows), step)

    def held_out(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The same losses on fixed samples with fixed draws, without the adversarial term."""
        return self.output(self.material(None, rows), None).losses

    @abstractmethod
    def output(self, material: Material, step: int | None) -> Output:
        """Losses of samples of one step, or of held-out ones (None)."""

    def material(self, step: int | None, rows: Sequence[int]) -> Material:
        """Pairs of one step, or held-out ones (None) without augmentation."""
        rngs = self.setting.rngs(step, rows)
        data = self.setting.held_out_data if step is None else self.setting.data
        samples = [data.pair(rng) for rng in rngs]
        return self.loader.load(samples, rngs, follow=self.inference_form, augment=step is not None)

    def condition(self, material: Material, train: bool) -> Conditions:
        """With dropouts in training, without elsewhere."""
        drop = self.setting.config.drop if train else None
        return condition(self.networks, material, drop, recompute=self.arithmetic.recompute)

    def predict(self, latents: Tensor, levels: Tensor, conditions: Conditions) -> Tensor:
        """(B, C, 1, h, w) at (B, 1) timesteps -> clean latents."""
        recompute = self.arithmetic.recompute
        return predict_clean(
            self.networks, self.schedule, latents, levels, conditions, temporal=False, recompute=recompute
        )

    def entering(self, material: Material) -> tuple[Tensor, Tensor]:
        """Frames as a stream begins them: (B, C, 1, h, w) noised portraits, and their (B, 1) timesteps."""
        top = self.at(self.levels[-1], len(material.portrait))
        noise = noise_of(material.rngs, material.latent.shape[1:], self.arithmetic.device)
        return self.schedule.add_noise(material.entering, noise, top), top

    def at(self, level: int, count: int) -> Tensor:
        """(count, 1) equal timesteps."""
        return torch.full((count, 1), level, device=self.arithmetic.device)

    def sheet(self, rows: int) -> np.ndarray:
        """Reference, driver's face, truth, and what all denoising steps make of it, one sample per row."""
        shown = []
        for row in range(rows):
            material = self.material(None, [row])
            with self.arithmetic.autocast():
                made = decode(self.networks, self.generate(material)[:, :, 0], recompute=False)
            portrait = decode(self.networks, material.portrait, recompute=False)
            shown.append(pictures(torch.cat([portrait, material.target[:, 0], made.to(portrait)])))
            shown[-1].insert(1, pictures(material.faces)[0])
        return page(shown)

    def generate(self, material: Material) -> Tensor:
        """All denoising steps of a stream on single frames: (B, C, 1, h, w) clean latents."""
        conditions = self.condition(material, train=False)
        sample, _ = self.entering(material)
        clean = sample
        for level in reversed(self.levels):
            at = self.at(level, len(sample))
            clean = self.predict(sample, at, conditions)
            lower = (at - self.schedule.config.step).clamp(min=self.levels[0])
            sample = self.schedule.move(sample, clean, at, lower)
        return clean
