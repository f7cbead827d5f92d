"""Base of the image-level stages: frames without the temporal modules.

Letters: B samples, F frames each, C latent channels, h w latent sides, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from personalive.training.batch import Batch, decode
from personalive.training.data.sets import Drawing, Pair
from personalive.training.discriminator import HALVING, Judged
from personalive.training.log import images_of, page
from personalive.training.losses import LatentLoss, Output, channel_effect, fit_masks
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.training.stages.denoise import Conditions, Predicted, condition, noise_of, predict_clean
from personalive.training.stages.finding import finding_errors

EFFECT_SAMPLES = 4
PLACE_WEIGHTS = (1.0, 2.0, 4.0)  # face, eyes, mouth: what the discriminator of latents judges


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """Outputs of the model for a batch."""

    batch: Batch
    conditions: Conditions
    predicted: Predicted
    levels: Tensor  # (B, F) timesteps that they were predicted from


class ImageLevel(StageLosses[Batch]):
    """Batches, conditions and predictions of stages motion, distill and detail."""

    kind = Batch

    def __init__(self, context: Context, inference_form: bool) -> None:
        """``inference_form``: heads are placed and frames begun as in use, not as published."""
        super().__init__(context)
        self.inference_form, self.levels = inference_form, self.networks.config.schedule.levels
        images = self.config.images
        if images.frames > 1:
            self.drawing = Drawing(images.frames, images.frame_stride)

    def make(self, samples: Sequence[Pair]) -> Batch:
        """See ``BatchMaker.make``."""
        return self.context.maker.make(samples, follow=self.inference_form)

    def latent_loss(self) -> LatentLoss:
        """Loss of clean latents, by what their channels do to an image where that is wanted."""
        effect = None
        if self.config.loss.by_channel:
            latents = self.held_out_batch(range(EFFECT_SAMPLES))[0].latent[:, :, 0]
            effect = channel_effect(self.networks, self.compute, latents)
        return LatentLoss(self.config, self.networks, self.compute, effect)

    def with_detail(self, output: Output, made: Attempt) -> Output:
        """The output with the detail head's task, for a model that has one."""
        if self.networks.detail is None or not self.config.loss.detail:
            return output
        with self.compute.autocast():
            pixels, flow = finding_errors(self.networks.detail, made.batch, made.predicted.features)
        loss = output.losses["loss"] + self.config.loss.detail * (pixels + flow)
        return Output({**output.losses, "loss": loss, "found": pixels.detach(), "flow": flow.detach()}, output.judged)

    # --- the denoiser ---------------------------------------------------------------------------------

    def condition(self, batch: Batch, rngs: Rngs, train: bool) -> Conditions:
        """With augmentation and dropouts in training, without elsewhere."""
        config = self.config if train else None
        return condition(self.networks, batch, rngs, config, recompute=self.compute.recompute)

    def predict(self, latents: Tensor, levels: Tensor, conditions: Conditions) -> Predicted:
        """(B, C, F, h, w) at (B, F) timesteps -> clean latents."""
        recompute = self.compute.recompute
        return predict_clean(
            self.networks, self.schedule, latents, levels, conditions, temporal=False, recompute=recompute
        )

    def entering(self, batch: Batch, rngs: Rngs) -> tuple[Tensor, Tensor]:
        """Frames as a stream begins them: (B, C, F, h, w) noised portraits, and their (B, F) timesteps."""
        top = self.at(self.levels[-1], batch)
        noise = noise_of(rngs, batch.latent.shape[1:], self.compute.device)
        return self.schedule.add_noise(batch.entering, noise, top), top

    def at(self, level: int, batch: Batch) -> Tensor:
        """(B, F) equal timesteps."""
        return torch.full(batch.target.shape[:2], level, device=self.compute.device)

    # --- what people see ------------------------------------------------------------------------------

    def sheet(self, rows: int) -> np.ndarray:
        """Reference, driver's face, truth, and what all denoising steps make of it, one sample per row."""
        shown = []
        for row in range(rows):
            batch, rngs = self.held_out_batch([row])
            with self.compute.autocast():
                made = decode(self.networks, self.generate(batch, rngs)[:, :, 0], recompute=False)
                portrait = decode(self.networks, batch.portrait, recompute=False)
            truth = batch.target[:, 0].float() / 127.5 - 1
            shown.append(images_of(torch.cat([portrait.float(), truth, made])))
            shown[-1].insert(1, images_of(batch.faces[:, 0])[0])
        return page(shown)

    def generate(self, batch: Batch, rngs: Rngs) -> Tensor:
        """All denoising steps of a stream on single frames: (B, C, F, h, w) clean latents."""
        conditions = self.condition(batch, rngs, train=False)
        sample, _ = self.entering(batch, rngs)
        clean = sample
        for level in reversed(self.levels):
            at = self.at(level, batch)
            clean = self.predict(sample, at, conditions).clean
            lower = (at - self.schedule.config.step).clamp(min=self.levels[0])
            sample = self.schedule.move(sample, clean, at, lower)
        return clean


def frames_of(x: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B*F, C, h, w)."""
    return rearrange(x, "b c f h w -> (b f) c h w")


def judged(batch: Batch, conditions: Conditions) -> Judged:
    """A batch as the discriminator of latents sees it."""
    weights = torch.tensor(PLACE_WEIGHTS, device=batch.masks.device)[:, None, None]
    masks = fit_masks(batch.masks.flatten(0, 1).float(), tuple(n // HALVING for n in batch.latent.shape[-2:]))
    places = (masks * weights).sum(dim=1)
    return Judged(
        real=frames_of(batch.latent),
        entering=frames_of(batch.entering),
        motion=rearrange(conditions.motion.detach().float(), "b f t k -> (b f) (t k)"),
        weight=places / places.mean().clamp(min=1e-6),
    )
