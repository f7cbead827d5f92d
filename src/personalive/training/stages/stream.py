"""Stage ``stream``: sliding training of the temporal modules (paper, stage 3).

A window of four chunks slides over a clip, one chunk per call. Truth enters as input in the first window alone;
from then on the window holds what the model itself made, with fresh noise one level lower, and a new chunk of pure
noise. Chosen windows end with an update.

Letters: B clips, F frames in a window (16), n frames per chunk (4), C latent channels, h w latent sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.training.batch import Batch, decode, signed
from personalive.training.config import DropConfig, ImageConfig, TrainConfig
from personalive.training.data.sets import Drawing, Pair
from personalive.training.losses import LatentLoss, Output, PixelLoss, channel_effect
from personalive.training.stages.base import Context, Rngs, StageLosses
from personalive.training.stages.denoise import Conditions, condition, noise_of, predict_clean
from personalive.training.stages.image_level import frames_of
from personalive.training.stages.rollout import RolledOut, Window, preview, window_of

EFFECT_FRAMES = 4  # of a held-out clip, that the effect of latent channels is measured on


class StreamLosses(StageLosses[Batch]):
    """The loss of stage distill over all frames of chosen windows; or of their latents and changes (ours)."""

    kind = Batch

    def __init__(self, context: Context) -> None:
        """
        Raises:
            InputError: a clip too short for the windows that should carry a gradient.
        """
        super().__init__(context)
        settings, sizes = self.config.stream, self.networks.config
        self.drawing = Drawing(settings.frames, settings.frame_stride)
        self.roll: Windows | RolledOut = RolledOut(context) if settings.inference_form else Windows(context)
        self.updates = len(settings.gradient_windows)
        self.loss: PixelLoss | LatentLoss
        if self.config.loss.domain == "pixels":
            self.loss = PixelLoss(self.config, sizes.image_size_px, self.compute)
            if self.config.loss.adversarial:
                self.adversary = self.loss
        else:
            self.loss = LatentLoss(self.config, self.networks, self.compute, self._effect())
        windows = (settings.frames - sizes.window_frames) // sizes.chunk_frames + 1
        if settings.gradient_windows[-1] >= windows:
            raise InputError(
                f"stream.gradient_windows {list(settings.gradient_windows)}: {settings.frames} frames have "
                f"windows 0 to {windows - 1}: name some of those, or raise stream.frames"
            )

    def make(self, samples: Sequence[Pair]) -> Batch:
        """See ``BatchMaker.make``."""
        return self.context.maker.make(samples, moved=not self.config.stream.inference_form)

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """One output per window with a gradient."""
        for clean, window in self.roll.predictions(step, batch, rngs):
            masks = window.masks.flatten(0, 1)
            if isinstance(self.loss, LatentLoss):
                yield self._of_latents(clean, window, masks)
                continue
            with self.compute.autocast():
                made = decode(self.networks, frames_of(clean), recompute=self.compute.recompute)
            yield self.loss.output(made, signed(window.target.flatten(0, 1)), masks, window.levels.flatten(), step)

    def _of_latents(self, clean: Tensor, window: Window, masks: Tensor) -> Output:
        assert isinstance(self.loss, LatentLoss)
        errors = self.loss.errors(frames_of(clean), frames_of(window.latent), masks)
        made, true = (frames_of(x.diff(dim=2)) for x in (clean, window.latent))
        change = self.loss.errors(made, true, window.masks[:, 1:].flatten(0, 1))
        loss = errors.weighted(self.config.loss) + self.config.loss.change * change.weighted(self.config.loss)
        return Output({"loss": loss, "latent": errors.whole.detach(), "change": change.whole.detach()})

    def _effect(self) -> Tensor | None:
        if not self.config.loss.by_channel:
            return None
        latents = self.held_out_batch([0])[0].latent[0].transpose(0, 1)[:EFFECT_FRAMES]
        return channel_effect(self.networks, self.compute, latents)

    def sheet(self, rows: int) -> np.ndarray:
        """See ``preview``."""
        return preview(self.context, rows)


class Windows:
    """The published roll-out. The truth of every window is known; the engine plays no part."""

    def __init__(self, context: Context) -> None:
        self.context, self.schedule = context, context.schedule
        config = context.networks.config
        self.chunk, self.window_frames = config.chunk_frames, config.window_frames

    def predictions(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[tuple[Tensor, Window]]:
        """Clean latents (B, C, F, h, w) with gradient, and the truth, of every window that updates."""
        networks, compute = self.context.networks, self.context.compute
        config = self.context.config if step is not None else None
        with torch.no_grad(), compute.autocast():  # what conditions the frames is not trained here
            conditions = condition(networks, batch, rngs, _without_drops(config), recompute=False)
        at = self.schedule.timesteps(self.chunk).to(compute.device).expand(len(rngs), -1)
        latents = self.first(batch, rngs, at)
        updating = self.context.config.stream.gradient_windows
        for number in range(updating[-1] + 1):
            window = slice(number * self.chunk, number * self.chunk + self.window_frames)
            train = number in updating and step is not None
            with torch.set_grad_enabled(train), compute.autocast():
                clean = predict_clean(
                    networks,
                    self.schedule,
                    latents,
                    at,
                    _of_window(conditions, window),
                    temporal=True,
                    recompute=compute.recompute,
                ).clean
            if number in updating:
                yield clean, window_of(batch, window, at)
            latents = self.slide(clean.detach(), at, rngs)

    def first(self, batch: Batch, rngs: Rngs, at: Tensor) -> Tensor:
        """The first window: truth noised to the lower levels, and a last chunk of pure noise."""
        truth = batch.latent[:, :, : self.window_frames]
        noise = noise_of(rngs, truth.shape[1:], self.context.compute.device)
        noised = self.schedule.add_noise(truth, noise, at)
        known = self.window_frames - self.chunk
        return torch.cat([noised[:, :, :known], noise[:, :, known:]], dim=2)

    def slide(self, clean: Tensor, at: Tensor, rngs: Rngs) -> Tensor:
        """The next window: chunks 2 to 4 of what was predicted, fresh noise one level lower, and pure noise."""
        noise = noise_of(rngs, clean.shape[1:], clean.device)
        known = self.window_frames - self.chunk
        lowered = self.schedule.add_noise(clean[:, :, self.chunk :], noise[:, :, :known], at[:, :known])
        return torch.cat([lowered, noise[:, :, known:]], dim=2)


def _of_window(conditions: Conditions, window: slice) -> Conditions:
    return Conditions(
        conditions.context,
        conditions.motion[:, window],
        conditions.pose[:, :, window],
        conditions.reference,
        conditions.shown,
    )


def _without_drops(config: TrainConfig | None) -> TrainConfig | None:
    """Augmentation alone: what is dropped in stages motion and distill teaches the temporal modules nothing."""
    if config is None:
        return None
    drop = DropConfig(reference=0, pose=0, motion=0, reference_tokens=0)
    return config.model_copy(update={"drop": drop, "images": ImageConfig()})
