"""Sliding training by inference itself (ours): every window is one ``Engine.advance``.

So DDIM transitions, the entering noised portrait, keyframes in the bank and the model's own translation gain are
those of use, and the interpolated start plays before the first frame. The truth is a real recording all the same:
where the gain is below 1, the head of the truth moves further than the canvas says, as it does in self-reenactment.

Letters: F frames in a window (16), n frames per chunk (4), C latent channels, h w latent sides, S image side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.models.networks import Networks
from personalive.training.predicted import advance_predicting, detached
from personalive.training.recipe.journal import page
from personalive.training.recipe.material import check_sample, mask_tensor
from personalive.training.recipe.stage import Setting, Window
from personalive.training.sets import Clip
from personalive.vision.resize import frames_to_tensor

SHEET_COLUMNS = 8


class RolledOut:
    """Roll-out of the engine over clips; several clips take turns, because a stream is one portrait's."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.engine = _engine(setting)
        self.at = self.engine.schedule.timesteps(self.engine.chunk_frames).to(setting.arithmetic.device)

    def predictions(self, step: int | None, rows: Sequence[int]) -> Iterator[tuple[Tensor, Window]]:
        """Clean latents (B, C, F, h, w) with gradient, and the truth, of every window that updates.

        Windows are counted from the first that holds no frame of the ease-in.
        """
        clips, rngs = self.setting.clips(step, rows)
        streams = [
            self._stream(clip, int(rng.integers(2**31)), step is not None)
            for clip, rng in zip(clips, rngs, strict=True)
        ]
        for found in zip(*streams, strict=True):
            clean, windows = zip(*found, strict=True)
            yield torch.cat(clean), Window(*(torch.cat(parts) for parts in zip(*windows, strict=True)))

    def _stream(self, clip: Clip, seed: int, train: bool) -> Iterator[tuple[Tensor, Window]]:
        """One clip, portrayed by its first frame, so that its movement is relative to the portrait's as in use."""
        check_sample(clip.target, self.engine.image_size)
        engine, settings, count = self.engine, self.setting.config.stream, self.engine.chunk_frames
        with self.setting.arithmetic.autocast():
            state = engine.start(clip.target[0], seed=seed, keyframe_threshold=settings.keyframe_threshold)
        ease_in = engine.warmup_frames // count
        for call in range(settings.gradient_windows[-1] + ease_in + 1):
            updates = call - ease_in in settings.gradient_windows
            with self.setting.arithmetic.autocast():
                with torch.no_grad():
                    conditioning = engine.conditioner.drive(state, clip.driving[call * count : (call + 1) * count])
                with torch.set_grad_enabled(updates and train):
                    state, clean = advance_predicting(engine, state, conditioning)
            if updates:
                yield clean, self._truth(clip, (call - ease_in) * count)
            state = detached(state)

    def _truth(self, clip: Clip, first: int) -> Window:
        frames = slice(first, first + self.at.shape[1])
        device = self.setting.arithmetic.device
        target = frames_to_tensor(clip.target[frames], "signed", device=device)
        masks = mask_tensor(clip.masks[frames], device)
        return Window(target[None], masks[None], self.at)


def _engine(setting: Setting) -> Engine:
    """The engine of the model, except that keyframes may come earlier."""
    networks = setting.networks
    first = setting.config.stream.keyframe_first_call
    keyframes = dataclasses.replace(networks.config.keyframes, first_call=first)
    config = dataclasses.replace(networks.config, keyframes=keyframes)
    earlier: Networks = dataclasses.replace(networks, config=config)
    return Engine(earlier, backend=Backend(earlier, recompute=setting.arithmetic.recompute))


def preview(setting: Setting, rows: int) -> np.ndarray:
    """Held-out clips as a user sees them: for each the drivers, and below them the portrait's frames."""
    engine, shown = Engine(setting.networks), []
    count = engine.chunk_frames
    for rng in setting.rngs(None, range(rows)):
        clip = setting.held_out_data.clip(rng, SHEET_COLUMNS * count, 1)
        windows = [clip.driving[start : start + count] for start in range(0, len(clip.driving), count)]
        with setting.arithmetic.autocast():
            made = [chunk[0].numpy() for chunk in engine.stream(clip.target[0], windows)]
        shown += [[window[0] for window in windows], made]
    return page(shown)
