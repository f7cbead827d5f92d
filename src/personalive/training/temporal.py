"""Stage 5 of the bundled model: the temporal modules, trained on what the engine really does.

Every step is one ``Engine.advance`` of a stream that goes on from step to step (its past detached), so the net sees
its own mistakes, the entering frames of use and DDIM transitions, and no step is lost to warming up. All frames in
flight have a part in the loss. Source: paper section 3 (micro-chunk streaming, sliding training); the roll-out is
ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from personalive.engine.engine import Engine
from personalive.engine.state import StreamState, draw_noise, entering_latents
from personalive.models.networks import Networks
from personalive.models.unet import DenoisingUNet
from personalive.synthetic import Identity, Performance, render
from personalive.training.data import coverage
from personalive.training.loop import Losses
from personalive.training.motion import CROSS_SHARE, channel_weights, mask_weights, robust
from personalive.training.predicted import advance_predicting, detached
from personalive.training.presets import HELD_OUT_SEED

CHANGE_WEIGHT = 0.5  # of the error of frame-to-frame changes
FIRST_SEED = 100_000  # of the people shown: the stages before have not seen them, or their errors would be too small


@dataclass
class Stream:
    """One stream in training, and the truth of the frames in flight."""

    state: StreamState
    person: Identity
    driver: Identity
    performance: Performance
    frame: int  # of the performance: the next one to enter
    windows: int  # still to come
    entered: Tensor  # (1, C, F, h, w) what the frames in flight entered as, before noise
    target: Tensor  # (1, C, F, h, w) clean latents; before the ease-in has left F is smaller
    weight: Tensor  # (1, 1, F, h, w)


class TemporalStage:
    """Weighted error of all clean latents in flight, and of their changes over time."""

    def __init__(
        self,
        networks: Networks,
        effect: Tensor,
        batch: int,
        frames: int,
        rank: int = 0,
        ranks: int = 1,
        *,
        rolled_out: bool = True,
    ) -> None:
        """
        Args:
            effect: (C,) see ``cache.channel_effect``.
            batch: streams per step.
            frames: of a stream, after its ease-in, before another begins.
            rank: of this process among ``ranks``.
            rolled_out: frames in flight are what the model itself made of them; else what a model would have made
                that predicts the truth (the paper's ablation: without sliding training).
        """
        self.engine, self.frames, self.rolled_out = Engine(networks), frames, rolled_out
        self.rng = np.random.default_rng([5, rank, ranks])
        self.channels = channel_weights(effect).to(self.engine.device)
        self.streams = [self._begin(windows) for windows in self._staggered(batch)]

    def __call__(self, step: int, done: float) -> Losses:
        losses = [self._window(number) for number in range(len(self.streams))]
        return {key: torch.stack([one[key] for one in losses]).mean() for key in losses[0]}

    def _staggered(self, batch: int) -> list[int]:
        """Lengths of the first streams in windows: later on they end one after another, not all at once."""
        whole = self.frames // self.engine.chunk_frames
        return [max(1, whole * (number + 1) // batch) for number in range(batch)]

    def _begin(self, windows: int) -> Stream:
        """A new stream, run until no frame of its ease-in is left."""
        person, driver = (Identity.sample(int(self.rng.integers(FIRST_SEED, HELD_OUT_SEED))) for _ in range(2))
        if self.rng.random() >= CROSS_SHARE:
            driver = person
        performance = Performance.sample(int(self.rng.integers(FIRST_SEED, HELD_OUT_SEED)))
        frame = int(self.rng.integers(2_000))
        portrait = render(person, performance.at(frame), self.engine.image_size).image
        with self._half():
            state = self.engine.start(portrait, seed=int(self.rng.integers(2**31)))
        nothing = state.latents[:, :, :0]
        stream = Stream(state, person, driver, performance, frame, windows, nothing, nothing, nothing[:, :1])
        for _ in range(self.engine.warmup_frames // self.engine.chunk_frames):
            with torch.no_grad():
                self._advance(stream)
        return stream

    def _window(self, number: int) -> Losses:
        stream = self.streams[number]
        clean = self._advance(stream)
        weight, target = stream.weight * self.channels, stream.target
        error = (weight * robust(clean - target)).mean()
        change = (weight[:, :, 1:] * robust(clean.diff(dim=2) - target.diff(dim=2))).mean()
        stream.windows -= 1
        if stream.windows <= 0:
            self.streams[number] = self._begin(self.frames // self.engine.chunk_frames)
        return {"loss": error + CHANGE_WEIGHT * change, "latent": error.detach(), "change": change.detach()}

    def _advance(self, stream: Stream) -> Tensor:
        """The next window: what is predicted for the frames in flight; moves the stream on."""
        engine, count = self.engine, self.engine.chunk_frames
        numbers = range(stream.frame, stream.frame + count)
        truth = [render(stream.person, stream.performance.at(i), engine.image_size) for i in numbers]
        driving = truth
        if stream.driver is not stream.person:
            driving = [render(stream.driver, stream.performance.at(i), engine.image_size) for i in numbers]
        with self._half():
            with torch.no_grad():
                window = np.stack([frame.image for frame in driving])
                conditioning = engine.conditioner.drive(stream.state, window)
                before = stream.state if self.rolled_out else self._perfect(stream)
            entered = entering_latents(stream.state, conditioning, count)
            state, clean = advance_predicting(engine, before, conditioning)
        target = torch.cat([stream.target, self._latents([frame.image for frame in truth])], dim=2)
        masks = np.stack([coverage((f.face_mask, f.eyes_mask, f.mouth_mask)) for f in truth])
        weight = mask_weights(masks, target.shape[-1], 1).to(target)
        flight = engine.config.window_frames
        stream.target = target[:, :, -flight:]
        stream.entered = torch.cat([stream.entered, entered], dim=2)[:, :, -flight:]
        stream.weight = torch.cat([stream.weight, weight], dim=2)[:, :, -flight:]
        stream.state, stream.frame = detached(state), stream.frame + count
        return clean

    def _perfect(self, stream: Stream) -> StreamState:
        """The state had the model predicted the truth so far; frames of the ease-in, which has none, stay."""
        engine, state = self.engine, stream.state
        known = min(stream.target.shape[2], engine.warmup_frames)
        if known == 0:
            return state
        clean, entered = stream.target[:, :, -known:], stream.entered[:, :, -known:]
        at = engine.schedule.timesteps(engine.chunk_frames).to(engine.device)
        levels, top = at[:, engine.warmup_frames - known : engine.warmup_frames], at[:, -1:].expand(-1, known)
        noise = draw_noise(int(self.rng.integers(2**31)), 0, tuple(entered.shape), engine.device)
        sample = engine.schedule.add_noise(entered, noise, top)
        latents = engine.schedule.move(sample, clean, top, levels)
        return dataclasses.replace(state, latents=torch.cat([state.latents[:, :, :-known], latents], dim=2))

    @torch.no_grad()
    def _latents(self, pictures: Sequence[np.ndarray]) -> Tensor:
        pixels = torch.from_numpy(np.stack(pictures)).to(self.engine.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with self._half():
            latents = self.engine.conditioner.encode(pixels)
        return rearrange(latents.float(), "f c h w -> 1 c f h w")

    def _half(self) -> torch.autocast:
        return torch.autocast(self.engine.device.type, torch.bfloat16)


class TemporalModules(nn.Module):
    """Modules that this stage trains."""

    def __init__(self, unet: DenoisingUNet) -> None:
        super().__init__()
        ends = ".temporal_modules"
        self.by_block = nn.ModuleDict(
            {name.replace(".", "_"): module for name, module in unet.named_modules() if name.endswith(ends)}
        )
