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
from einops import rearrange
from torch import Tensor

from personalive.errors import InputError
from personalive.training.recipe.denoise import Conditions, condition, noise_of, predict_clean
from personalive.training.recipe.losses import Output, PixelLoss
from personalive.training.recipe.material import Loader, Material, decode
from personalive.training.recipe.rolled_out import RolledOut, preview
from personalive.training.recipe.stage import Setting, StageLosses, Window


class StreamLosses(StageLosses):
    """The loss of stage distill over all frames of chosen windows."""

    pixels: PixelLoss

    def __init__(self, setting: Setting) -> None:
        """
        Raises:
            InputError: a clip too short for the windows that should carry a gradient.
        """
        self.setting, self.config = setting, setting.config.stream
        self.windows = Windows(setting)
        self.rolled_out = RolledOut(setting)
        self.pixels = PixelLoss(setting.config, setting.networks.config.image_size_px, setting.arithmetic)
        self.updates = len(self.config.gradient_windows)
        if self.config.gradient_windows[-1] >= self.windows.count:
            raise InputError(
                f"stream.gradient_windows {list(self.config.gradient_windows)}: {self.config.frames} frames have "
                f"windows 0 to {self.windows.count - 1}: name some of those, or raise stream.frames"
            )

    def losses(self, step: int | None, rows: Sequence[int]) -> Iterator[Output]:
        """One output per window with a gradient; of held-out samples if ``step`` is None."""
        roll = self.rolled_out if self.config.inference_form else self.windows
        for clean, window in roll.predictions(step, rows):
            with self.setting.arithmetic.autocast():
                flat = rearrange(clean, "b c f h w -> (b f) c h w")
                made = decode(self.setting.networks, flat, recompute=self.setting.arithmetic.recompute)
            real = window.target.flatten(0, 1)
            yield self.pixels.output(made, real, window.masks.flatten(0, 1), window.levels.flatten(), step)

    def held_out(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Means over the same windows of fixed clips, without the adversarial term."""
        found = [output.losses for output in self.losses(None, rows)]
        return {name: torch.stack([one[name] for one in found]).mean() for name in found[0]}

    def sheet(self, rows: int) -> np.ndarray:
        """See ``preview``."""
        return preview(self.setting, rows)


class Windows:
    """The published roll-out. The truth of every window is known; the engine plays no part."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.schedule = setting, setting.schedule
        self.loader: Loader = setting.loader
        config = setting.networks.config
        self.chunk, self.window_frames, self.levels = (
            config.chunk_frames,
            config.window_frames,
            config.schedule.levels,
        )
        self.count = (setting.config.stream.frames - self.window_frames) // self.chunk + 1

    def predictions(self, step: int | None, rows: Sequence[int]) -> Iterator[tuple[Tensor, Window]]:
        """Clean latents (B, C, F, h, w) with gradient, and the truth, of every window that updates."""
        samples, rngs = self.setting.clips(step, rows)
        material = self.loader.load(samples, rngs, augment=step is not None)
        arithmetic = self.setting.arithmetic
        with torch.no_grad(), arithmetic.autocast():  # what conditions the frames is not trained here
            conditions = condition(self.setting.networks, material, None)
        at = self.schedule.timesteps(self.chunk).to(arithmetic.device).expand(len(rows), -1)
        latents = self.first(material, at)
        updating = self.setting.config.stream.gradient_windows
        for number in range(updating[-1] + 1):
            window = slice(number * self.chunk, number * self.chunk + self.window_frames)
            train = number in updating and step is not None
            with torch.set_grad_enabled(train), arithmetic.autocast():
                clean = predict_clean(
                    self.setting.networks,
                    self.schedule,
                    latents,
                    at,
                    _of_window(conditions, window),
                    temporal=True,
                    recompute=arithmetic.recompute,
                )
            if number in updating:
                yield clean, Window(material.target[:, window], material.masks[:, window], at)
            latents = self.slide(clean.detach(), at, material.rngs)

    def first(self, material: Material, at: Tensor) -> Tensor:
        """The first window: truth noised to the lower levels, and a last chunk of pure noise."""
        shape = material.latent[:, :, : self.window_frames].shape[1:]
        noise = noise_of(material.rngs, shape, self.setting.arithmetic.device)
        noised = self.schedule.add_noise(material.latent[:, :, : self.window_frames], noise, at)
        known = self.window_frames - self.chunk
        return torch.cat([noised[:, :, :known], noise[:, :, known:]], dim=2)

    def slide(self, clean: Tensor, at: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
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
