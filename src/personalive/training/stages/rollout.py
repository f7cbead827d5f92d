"""Sliding training by inference itself (ours): every window is one ``Engine.advance``.

So DDIM transitions, the entering noised portrait, keyframes in the bank and the model's own translation gain are
those of use, and the interpolated start plays before the first frame. The truth is a real recording all the same:
where the gain is below 1, the head of the truth moves further than the canvas says, as it does in self-reenactment.

Letters: B clips, F frames in flight, n frames per chunk (4), C latent channels, h w latent sides, S image side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.state import Conditioning, Motion, StreamState, draw_noise, entering_latents
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.training.batch import Batch, unpack_poses
from personalive.training.log import page
from personalive.training.stages.base import Context, Rngs

SHEET_COLUMNS = 8


class Window(NamedTuple):
    """The truth of frames in flight."""

    target: Tensor  # (B, F, 3, S, S) uint8
    latent: Tensor  # (B, C, F, h, w)
    masks: Tensor  # (B, F, 3, G, G) in [0, 1]
    levels: Tensor  # (B, F) timesteps


class RolledOut:
    """Roll-out of the engine over clips; several clips take turns, because a stream is one portrait's."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.engine = _engine(context)
        self.at = self.engine.schedule.timesteps(self.engine.chunk_frames).to(context.compute.device)

    def predictions(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[tuple[Tensor, Window]]:
        """Clean latents (B, C, F, h, w) with gradient, and the truth, of every window that updates.

        Windows are counted from the first that holds no frame of the ease-in.
        """
        streams = [
            self._stream(batch, row, int(rng.integers(2**31)), step is not None) for row, rng in enumerate(rngs)
        ]
        for found in zip(*streams, strict=True):
            clean, windows = zip(*found, strict=True)
            yield torch.cat(clean), Window(*(torch.cat(parts) for parts in zip(*windows, strict=True)))

    def _stream(self, batch: Batch, row: int, seed: int, train: bool) -> Iterator[tuple[Tensor, Window]]:
        """One clip, portrayed by its first frame, so that its movement is relative to the portrait's as in use."""
        engine, settings, count = self.engine, self.context.config.stream, self.engine.chunk_frames
        own = Batch(**{name: value[row : row + 1] for name, value in batch.tensors().items()})
        portrait = np.ascontiguousarray(own.target[0, 0].permute(1, 2, 0).cpu().numpy())
        with self.context.compute.autocast():
            state = engine.start(portrait, seed=seed, keyframe_threshold=settings.keyframe_threshold)
        ease_in = engine.warmup_frames // count
        for call in range(settings.gradient_windows[-1] + ease_in + 1):
            updates = call - ease_in in settings.gradient_windows
            with self.context.compute.autocast():
                with torch.no_grad():
                    motion = self._motion(own, slice(call * count, (call + 1) * count))
                    conditioning = engine.conditioner.condition(state, motion)
                with torch.set_grad_enabled(updates and train):
                    state, clean = advance_predicting(engine, state, conditioning)
            if updates:
                first = (call - ease_in) * count
                yield clean, window_of(own, slice(first, first + self.at.shape[1]), self.at)
            state = detached(state)

    def _motion(self, batch: Batch, frames: slice) -> Motion:
        """As ``Conditioner.encode_motion``, of face crops and poses that are there already."""
        tokens = self.engine.backend.motion_tokens(batch.faces[0, frames])[None]
        assert batch.driver is not None
        return Motion(tokens, unpack_poses(batch.driver[0, frames]))


def window_of(batch: Batch, frames: slice, levels: Tensor) -> Window:
    """The truth of some frames of a batch."""
    return Window(batch.target[:, frames], batch.latent[:, :, frames], batch.masks[:, frames].float(), levels)


def _engine(context: Context) -> Engine:
    """The engine of the model, except that keyframes may come earlier."""
    networks = context.networks
    first = context.config.stream.keyframe_first_call
    keyframes = dataclasses.replace(networks.config.keyframes, first_call=first)
    config = dataclasses.replace(networks.config, keyframes=keyframes)
    earlier: Networks = dataclasses.replace(networks, config=config)
    return Engine(earlier, backend=Backend(earlier, recompute=context.compute.recompute))


def preview(context: Context, rows: int) -> np.ndarray:
    """Held-out clips as a user sees them: for each the drivers, and below them the portrait's frames."""
    engine, shown = Engine(context.networks), []
    count = engine.chunk_frames
    for row in range(rows):
        clip = context.held_out_data.clip(np.random.default_rng([0, context.number, row]), SHEET_COLUMNS * count, 1)
        windows = [clip.driving[start : start + count] for start in range(0, len(clip.driving), count)]
        with context.compute.autocast():
            made = [chunk[0].numpy() for chunk in engine.stream(clip.target[0], windows)]
        shown += [[window[0] for window in windows], made]
    return page(shown)


def advance_predicting(engine: Engine, state: StreamState, conditioning: Conditioning) -> tuple[StreamState, Tensor]:
    """``Engine.advance``, and the clean latents it predicted, (1, C, F, h, w) float32, cleanest first.

    Frames that stay are one step down in the next state, from which their prediction follows.
    """
    count = engine.chunk_frames
    at = engine.schedule.timesteps(count).to(engine.device)
    entered = _with_entering(engine, state, conditioning, at)
    following, leaving = engine.advance(state, conditioning)
    stay = engine.schedule.clean(entered[:, :, count:], following.latents, at[:, count:])
    return following, torch.cat([leaving.latents, stay], dim=2)


def detached(state: StreamState) -> StreamState:
    """The state without its gradient history; a keyframe taken in this call had one too."""
    kv = {name: KV(one.key.detach(), one.value.detach()) for name, one in state.reference.kv.items()}
    reference = dataclasses.replace(state.reference, kv=kv)
    return dataclasses.replace(state, reference=reference, latents=state.latents.detach())


def _with_entering(engine: Engine, state: StreamState, conditioning: Conditioning, at: Tensor) -> Tensor:
    """The latents that the next call of ``advance`` denoises."""
    clean = entering_latents(state, conditioning, engine.chunk_frames)
    noise = draw_noise(state.seed, state.call + 1, tuple(clean.shape), clean.device)
    entering = engine.schedule.add_noise(clean, noise, at[:, -clean.shape[2] :])
    return torch.cat([state.latents, entering], dim=2)
