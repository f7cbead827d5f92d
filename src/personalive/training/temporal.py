"""Stage 5 of the bundled model: the temporal modules, trained on what the engine really does.

Every window is one ``Engine.advance`` on the state the window before left behind (detached), so the net sees its
own mistakes, the noised portrait that enters, and DDIM transitions: the gaps of the published recipe do not
exist here. Source: paper section 3 (micro-chunk streaming, sliding training); the roll-out is ours.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from einops import rearrange
from torch import nn

from personalive.models.bundle import Networks
from personalive.models.unet import DenoisingUNet
from personalive.streaming.engine import Engine
from personalive.streaming.state import StreamState
from personalive.synthetic import Identity, Performance, render
from personalive.training.loop import Losses
from personalive.training.motion import robust

TRAINED_WINDOWS = 3  # windows with a gradient, the last ones of each clip
CHANGE_WEIGHT = 0.5  # of the error of frame-to-frame changes


class TemporalStage:
    """Squared error of the leaving latents and of their changes over time."""

    def __init__(self, networks: Networks, batch: int, frames: int) -> None:
        self.engine, self.batch, self.frames = Engine(networks), batch, frames

    def __call__(self, step: int, done: float) -> Losses:
        losses = [self._clip(np.random.default_rng([step, clip, 5])) for clip in range(self.batch)]
        return {key: torch.stack([one[key] for one in losses]).mean() for key in losses[0]}

    def _clip(self, rng: np.random.Generator) -> Losses:
        engine, count = self.engine, self.engine.chunk_frames
        frames = self._render(rng)
        seed = int(rng.integers(2**31))
        state = engine.start(frames[0], seed=seed, keyframe_threshold=float("inf"))
        truth = self._truth(frames)
        windows = self.frames // count
        made = []
        for index in range(windows):
            half = torch.autocast(engine.device.type, torch.bfloat16)
            with torch.no_grad(), half:
                conditioning = engine.conditioner.drive(state, frames[index * count : (index + 1) * count])
            with torch.set_grad_enabled(index >= windows - TRAINED_WINDOWS), half:
                state, leaving = engine.advance(_cut(state), conditioning)
            made.append(leaving)
        warmup = engine.warmup_frames // count
        output = torch.cat(made[warmup:], dim=2)
        target = truth[:, :, : output.shape[2]]
        error = robust(output - target).mean()
        change = robust(output.diff(dim=2) - target.diff(dim=2)).mean()
        return {"loss": error + CHANGE_WEIGHT * change, "latent": error.detach(), "change": change.detach()}

    def _render(self, rng: np.random.Generator) -> np.ndarray:
        """(frames, S, S, 3) of a training person; the first one is the portrait too."""
        person = Identity.sample(int(rng.integers(2_000)))
        performance = Performance.sample(int(rng.integers(1_000_000)))
        start = int(rng.integers(0, 2_000))
        size = self.engine.image_size
        return np.stack([render(person, performance.at(start + i), size).image for i in range(self.frames)])

    @torch.no_grad()
    def _truth(self, frames: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(frames).to(self.engine.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return rearrange(self.engine.conditioner.encode(pixels), "f c h w -> 1 c f h w")


def _cut(state: StreamState) -> StreamState:
    """The state without its gradient history."""
    return dataclasses.replace(state, latents=state.latents.detach())


def temporal_only(unet: DenoisingUNet) -> list[nn.Parameter]:
    """What this stage trains."""
    return [p for name, p in unet.named_parameters() if ".temporal_modules." in name]
