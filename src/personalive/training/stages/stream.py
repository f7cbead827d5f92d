"""Stage ``stream``: sliding training of the temporal modules (paper, stage 3).

A window of four chunks slides over a clip, one chunk per call; chosen windows end with an update. Published: truth
enters as input in the first window alone; from then on the window holds what the model itself made, with fresh noise
one level lower, and a new chunk of pure noise.

As in use (ours) every window is one ``Engine.advance``. So DDIM transitions, the entering noised portrait, keyframes
in the bank and the model's own translation gain are those of use, and the interpolated start plays before the first
frame. The truth is a real recording all the same: where the gain is below 1, the head of the truth moves further than
the canvas says, as it does in self-reenactment.

Letters: B clips, F frames in a window (16), C latent channels, h w latent sides, S image side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.state import Conditioning, Motion, StreamState, draw_noise, entering_latents
from personalive.errors import InputError
from personalive.models.attention import KV
from personalive.training.batch import Batch, unpack_poses
from personalive.training.config import DropConfig
from personalive.training.data.sets import Pair
from personalive.training.log import page
from personalive.training.losses import LatentLoss, Output
from personalive.training.stages.base import Context, Rngs
from personalive.training.stages.denoise import EFFECT_FRAMES, DenoiserLosses, frames_of, noise_of

SHEET_COLUMNS = 8


class Window(NamedTuple):
    """Frames in flight: what was predicted, and the truth."""

    clean: Tensor  # (B, C, F, h, w)
    target: Tensor  # (B, F, 3, S, S) uint8
    latent: Tensor  # (B, C, F, h, w)
    masks: Tensor  # (B, F, 3, G, G) in [0, 1]
    levels: Tensor  # (B, F) timesteps

    @classmethod
    def of(cls, clean: Tensor, batch: Batch, frames: slice, levels: Tensor) -> Window:
        """A prediction with the truth of its frames."""
        return cls(clean, batch.target[:, frames], batch.latent[:, :, frames], batch.masks[:, frames].float(), levels)


class StreamLosses(DenoiserLosses):
    """The loss of stage distill over all frames of chosen windows; or of their latents and changes (ours)."""

    def __init__(self, context: Context) -> None:
        """
        Raises:
            InputError: a clip too short for the windows that should carry a gradient.
        """
        super().__init__(context)
        settings, sizes = self.config.stream, self.networks.config
        self.clip = settings.frames, settings.frame_stride
        # augmentation alone: what is dropped in stages motion and distill teaches the temporal modules nothing
        self.drop, self.second_reference = DropConfig(reference=0, pose=0, motion=0, reference_tokens=0), 0.0
        self.predictions = self.rolled_out if settings.inference_form else self.windows
        self.updates = len(settings.gradient_windows)
        self.loss = self.choose_loss()
        if self.config.loss.adversarial and not isinstance(self.loss, LatentLoss):
            self.adversary = self.loss
        windows = (settings.frames - sizes.window_frames) // sizes.chunk_frames + 1
        if settings.gradient_windows[-1] >= windows:
            raise InputError(
                f"stream.gradient_windows {list(settings.gradient_windows)}: {settings.frames} frames have "
                f"windows 0 to {windows - 1}: name some of those, or raise stream.frames"
            )

    def make(self, samples: Sequence[Pair]) -> Batch:
        """See ``BatchMaker.make``."""
        return self.context.maker.make(samples, moved=not self.config.stream.inference_form)

    def effect_latents(self) -> Tensor:
        """(N, C, h, w) latents of one held-out clip."""
        return self.held_out_batch([0])[0].latent[0].transpose(0, 1)[:EFFECT_FRAMES]

    def losses(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Output]:
        """One output per window with a gradient."""
        for window in self.predictions(step, batch, rngs):
            clean, masks = frames_of(window.clean), window.masks.flatten(0, 1)
            if isinstance(self.loss, LatentLoss):
                errors = self.loss.errors(clean, frames_of(window.latent), masks)
                made, true = (frames_of(x.diff(dim=2)) for x in (window.clean, window.latent))
                change = self.loss.errors(made, true, window.masks[:, 1:].flatten(0, 1))
                weights = self.config.loss
                loss = errors.weighted(weights) + weights.change * change.weighted(weights)
                yield Output({"loss": loss, "latent": errors.whole, "change": change.whole})
            else:
                yield self.loss.output(clean, window.target.flatten(0, 1), masks, window.levels.flatten(), step)

    def windows(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Window]:
        """The published roll-out: every window that updates, its prediction with gradient."""
        sizes, updating = self.networks.config, self.config.stream.gradient_windows
        size, chunk, known = sizes.window_frames, sizes.chunk_frames, sizes.window_frames - sizes.chunk_frames
        with torch.no_grad(), self.compute.autocast():  # what conditions the frames is not trained here
            conditions = self.condition(batch, rngs, train=step is not None)
        at = self.schedule.timesteps(chunk).to(self.compute.device).expand(len(rngs), -1)
        truth = batch.latent[:, :, :size]
        noise = noise_of(rngs, truth.shape[1:], self.compute.device)
        lower = self.schedule.add_noise(truth, noise, at)[:, :, :known]
        for number in range(updating[-1] + 1):
            frames = slice(number * chunk, number * chunk + size)
            latents = torch.cat([lower, noise[:, :, known:]], dim=2)
            train = number in updating and step is not None
            with torch.set_grad_enabled(train), self.compute.autocast():
                clean = self.predict(latents, at, conditions.window(frames), temporal=True).clean
            if number in updating:
                yield Window.of(clean, batch, frames, at)
            noise = noise_of(rngs, clean.shape[1:], clean.device)
            lower = self.schedule.add_noise(clean.detach()[:, :, chunk:], noise[:, :, :known], at[:, :known])

    @cached_property
    def engine(self) -> Engine:
        """The model's engine, whose keyframes may come earlier than in use."""
        networks, first = self.networks, self.config.stream.keyframe_first_call
        keyframes = dataclasses.replace(networks.config.keyframes, first_call=first)
        earlier = dataclasses.replace(networks, config=dataclasses.replace(networks.config, keyframes=keyframes))
        return Engine(earlier, backend=Backend(earlier, recompute=self.compute.recompute))

    def rolled_out(self, step: int | None, batch: Batch, rngs: Rngs) -> Iterator[Window]:
        """The roll-out as in use: windows are counted from the first that holds no frame of the ease-in.

        Several clips take turns, because a stream is one portrait's.
        """
        seeds = [int(rng.integers(2**31)) for rng in rngs]
        streams = [self._stream(batch, row, seed, step is not None) for row, seed in enumerate(seeds)]
        for found in zip(*streams, strict=True):
            yield Window(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _stream(self, batch: Batch, row: int, seed: int, train: bool) -> Iterator[Window]:
        """One clip, portrayed by its first frame, so that its movement is relative to the portrait's as in use."""
        engine, settings, count = self.engine, self.config.stream, self.engine.chunk_frames
        own = Batch(**{name: value[row : row + 1] for name, value in batch.tensors().items()})
        driver = cast(Tensor, own.driver)
        portrait = np.ascontiguousarray(own.target[0, 0].permute(1, 2, 0).cpu().numpy())
        with self.compute.autocast():
            state = engine.start(portrait, seed=seed, keyframe_threshold=settings.keyframe_threshold)
        at = engine.schedule.timesteps(count).to(self.compute.device)
        ease_in = engine.warmup_frames // count
        for call in range(settings.gradient_windows[-1] + ease_in + 1):
            updates = call - ease_in in settings.gradient_windows
            with self.compute.autocast():
                with torch.no_grad():
                    # as ``Conditioner.encode_motion``, of face crops and poses that are there already
                    tokens = engine.backend.motion_tokens(own.faces[0, call * count :][:count])[None]
                    poses = unpack_poses(driver[0, call * count :][:count])
                    conditioning = engine.conditioner.condition(state, Motion(tokens, poses))
                with torch.set_grad_enabled(updates and train):
                    state, clean = advance_predicting(engine, state, conditioning)
            if updates:
                first = (call - ease_in) * count
                yield Window.of(clean, own, slice(first, first + at.shape[1]), at)
            state = detached(state)

    def sheet(self, rows: int) -> np.ndarray:
        """Held-out clips as a user sees them: for each the drivers, and below them the portrait's frames."""
        engine, shown = Engine(self.networks), []
        count = engine.chunk_frames
        for row in range(rows):
            rng = np.random.default_rng([0, self.context.number, row])
            clip = self.context.held_out_data.clip(rng, SHEET_COLUMNS * count, 1)
            windows = [clip.driving[start : start + count] for start in range(0, len(clip.driving), count)]
            with self.compute.autocast():
                made = [chunk[0].numpy() for chunk in engine.stream(clip.target[0], windows)]
            shown += [[window[0] for window in windows], made]
        return page(shown)


def advance_predicting(engine: Engine, state: StreamState, conditioning: Conditioning) -> tuple[StreamState, Tensor]:
    """``Engine.advance``, and the clean latents it predicted, (1, C, F, h, w) float32, cleanest first.

    Frames that stay are one step down in the next state, from which their prediction follows.
    """
    count = engine.chunk_frames
    at = engine.schedule.timesteps(count).to(engine.device)
    entering = entering_latents(state, conditioning, count)
    noise = draw_noise(state.seed, state.call + 1, tuple(entering.shape), entering.device)
    noised = engine.schedule.add_noise(entering, noise, at[:, -entering.shape[2] :])
    entered = torch.cat([state.latents, noised], dim=2)  # as ``advance`` denoises them
    following, leaving = engine.advance(state, conditioning)
    stay = engine.schedule.clean(entered[:, :, count:], following.latents, at[:, count:])
    return following, torch.cat([leaving.latents, stay], dim=2)


def detached(state: StreamState) -> StreamState:
    """The state without its gradient history; a keyframe taken in this call had one too."""
    kv = {name: KV(one.key.detach(), one.value.detach()) for name, one in state.reference.kv.items()}
    reference = dataclasses.replace(state.reference, kv=kv)
    return dataclasses.replace(state, reference=reference, latents=state.latents.detach())
