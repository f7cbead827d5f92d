"""Prediction of one engine call for every frame in flight: training uses all, users those that leave.

Letters: F frames in flight, n frames per chunk, C latent channels, h w latent sides.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.engine.state import Conditioning, StreamState, draw_noise, entering_latents
from personalive.models.attention import KV


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
