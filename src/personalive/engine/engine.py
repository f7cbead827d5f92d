"""The one engine: every video, live stream, export and training roll-out goes through ``Engine.advance``.

Letters as in state.py. Source: paper section 3.3 (micro-chunk streaming) and the released weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from personalive.config import FULL, KeyframeConfig, MemoryPreset
from personalive.device import HostCopy
from personalive.engine.backend import Backend
from personalive.engine.base import PLAIN, BaseEngine, check_square
from personalive.engine.conditioning import Conditioner
from personalive.engine.controls import Controls
from personalive.engine.directions import DirectionFinder
from personalive.engine.keyframes import extend, is_keyframe
from personalive.engine.schedule import Schedule
from personalive.engine.state import (
    Conditioning,
    DenoisedChunk,
    Motion,
    StreamState,
    draw_noise,
    entering_latents,
)
from personalive.errors import InputError
from personalive.models.detail import add_detail
from personalive.models.networks import Networks
from personalive.vision.keypoints import HeadPose


class Engine(BaseEngine):
    """The diffusion networks and a schedule."""

    def __init__(
        self,
        networks: Networks,
        *,
        backend: Backend | None = None,
        memory: MemoryPreset = FULL,
        name: str = "",
        folder: Path | None = None,
        find_directions: DirectionFinder | None = None,
    ) -> None:
        """
        Args:
            networks: all on one device, in eval mode; encoders that ``memory`` offloads may be on the CPU.
            backend: what runs them; None is torch.
            memory: decides how many frames are decoded at a time.
            name: which weights these are, for reports.
            folder: where they came from; a face detector may lie beside them.
            find_directions: see ``Conditioner``; ``load_engine`` gives one.
        """
        self.networks = networks
        self.name, self.folder = name, folder
        self.backend = backend or Backend(networks)
        self.config, self.memory = networks.config, memory
        self.conditioner = Conditioner(self.backend, find_directions)
        self.device, self.dtype = self.backend.device, self.backend.dtype
        self.schedule = Schedule(self.config.schedule, self.device)

    @property
    def max_steps(self) -> int:
        """Noise levels of the schedule: one step each."""
        return len(self.config.schedule.levels)

    @property
    def motion_networks(self) -> tuple[nn.Module, ...]:
        """Motion encoder and motion extractor."""
        return self.networks.motion_encoder, self.networks.motion_extractor

    @property
    def facts(self) -> dict[str, str]:
        """See ``BaseEngine.facts``."""
        return {
            "dtype": str(self.backend.precision).removeprefix("torch."),
            "backend": self.backend.name,
            "vram": self.memory.name,
            "decoder": type(self.networks.decoder).__name__,
        }

    def check(self, controls: Controls) -> bool:
        """See ``Conditioner.check``."""
        return self.conditioner.check(controls)

    # --- the stream -----------------------------------------------------------------------------------

    @torch.no_grad()
    def start(
        self,
        portrait: np.ndarray,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
        keyframe_threshold: float = KeyframeConfig.threshold,
        steps: int | None = None,
    ) -> StreamState:
        """Begin a stream.

        Args:
            portrait: (H, W, 3) uint8 RGB, square and already framed.
            seed: decides all noise of the stream that is not given.
            noise: (1, C, warm-up frames, h, w) instead of the engine's own draw.
            keyframe_threshold: motion distance above which a leaving frame becomes a keyframe (tau); infinity
                turns keyframes off.
            steps: denoising steps of every frame, 1 to ``max_steps``; None: all. Fewer take the highest noise levels
                alone, as training does: a frame leaves after the last of them. Each one less has four frames less in
                flight, here and in ``noise``.

        Raises:
            InputError: a portrait or noise of the wrong shape or kind, a threshold that is no number, or steps that
                the model does not have.
        """
        check_square(portrait, (3,), "portrait")
        if seed < 0:
            raise InputError(f"seed {seed}: give a whole number from 0 up")
        if math.isnan(keyframe_threshold) or keyframe_threshold < 0:
            raise InputError(f"keyframe threshold {keyframe_threshold}: give a number from 0 up, or infinity")
        warmup_frames = (self.check_steps(steps) - 1) * self.chunk_frames
        reference = self.conditioner.reference(portrait)
        clean = reference.latent.float()[:, :, None].expand(-1, -1, warmup_frames, -1, -1)
        timesteps = self.backend.timesteps(warmup_frames + self.chunk_frames)
        noise = self._noise(noise, seed, 0, clean.shape)
        return StreamState(
            reference=reference,
            latents=self.schedule.add_noise(clean, noise, timesteps[:, :warmup_frames]),
            motion=reference.motion[:, :0],
            pose=self._no_pose(reference.latent),
            poses=reference.pose[:0],
            newest=None,
            driver=None,
            bank=(HostCopy(reference.motion),),
            keyframe_candidates=(),
            keyframe_threshold=keyframe_threshold,
            seed=seed,
            call=0,
        )

    @torch.no_grad()
    def encode_motion(self, frames: np.ndarray) -> Motion:
        """Motion of driving frames, which ``step`` takes in their place, may be kept, and fits any portrait.

        Args:
            frames: (F, H, W, 3) uint8 RGB, square and already framed.

        Raises:
            InputError: frames of the wrong shape or kind.
        """
        check_square(frames, (len(frames) if isinstance(frames, np.ndarray) else 0, 3), "frames")
        return self.conditioner.encode_motion(frames)

    @torch.no_grad()
    def step(
        self,
        state: StreamState,
        window: np.ndarray | Motion,
        noise: Tensor | None = None,
        *,
        cut: int | None = None,
        controls: Controls = PLAIN,
    ) -> tuple[StreamState, Tensor]:
        """Take one chunk of driving frames in and give one chunk of finished frames out.

        With four steps the frames that leave were driven by the window three calls ago, and the first three chunks
        of a stream are the ease-in from the portrait; each step less has one of both less.

        Args:
            window: (4, H, W, 3) uint8 RGB, square and already framed, or the motion of such frames.
            noise: (1, C, 4, h, w) instead of the engine's own draw.
            cut: number of the window's frame that begins a new shot of the driver, if one does: from there on
                the driver's place is measured from that frame.
            controls: how the motion of this window reaches the portrait.

        Returns:
            The next state, and frames (4, S, S, 3) uint8 on the CPU.

        Raises:
            InputError: a window or noise of the wrong shape or kind, or a cut outside the window.
        """
        self._check_window(window, cut)
        motion = window if isinstance(window, Motion) else self.conditioner.encode_motion(window)
        state, chunk = self.advance(state, self.conditioner.condition(state, motion, cut, controls), noise)
        return state, self.decode(chunk)

    @torch.no_grad()
    def flush(self, state: StreamState) -> Iterator[Tensor]:
        """Drain the window: the chunks still in flight, each (4, S, S, 3) uint8; nothing before a first step."""
        if state.driver is None:
            return
        for _ in range(state.warmup_frames // self.chunk_frames):
            state, chunk = self.advance(state, self.conditioner.repeat_last(state))
            yield self.decode(chunk)

    def advance(
        self, state: StreamState, conditioning: Conditioning, noise: Tensor | None = None
    ) -> tuple[StreamState, DenoisedChunk]:
        """One call of the denoiser over all frames in flight; differentiable, latents only.

        Returns:
            The next state, and the frames that leave.
        """
        count = self.chunk_frames
        motion = torch.cat([state.motion, conditioning.motion], dim=1)
        pose = torch.cat([state.pose, conditioning.pose], dim=2)
        latents = torch.cat([state.latents, self._enter(state, conditioning, noise)], dim=2)
        # The host decides about a frame when it leaves, by what was sent to it when the frame entered.
        entered = (HostCopy(chunk[:, :1]) for chunk in conditioning.motion.split(count, dim=1))
        candidate, *candidates = (*state.keyframe_candidates, *entered)
        keep = is_keyframe(
            self.config.keyframes,
            bank=state.bank,
            candidate=candidate,
            call=state.call + 1,
            threshold=state.keyframe_threshold,
        )
        features, prediction = self.backend.denoise(
            latents.to(self.dtype),
            context=state.reference.context,
            motion=motion,
            pose=pose,
            reference=state.reference.kv,
        )
        stepped = self.schedule.step(prediction.float(), latents, self.backend.timesteps(latents.shape[2]))
        poses = HeadPose.cat([state.poses, conditioning.poses])
        finished = DenoisedChunk(stepped.original[:, :, :count], features, poses[:count], state.reference)
        reference, bank = state.reference, state.bank
        if keep:
            kv = self.backend.project(finished.latents[:, :, 0], reference.context)
            reference, bank = extend(reference, kv), (*bank, candidate)
        following = StreamState(
            reference=reference,
            latents=stepped.previous[:, :, count:],
            motion=motion[:, count:],
            pose=pose[:, :, count:],
            poses=poses[count:],
            newest=Motion(conditioning.motion[:, -1:], conditioning.poses[-1]),
            driver=conditioning.driver,
            bank=bank,
            keyframe_candidates=tuple(candidates),
            keyframe_threshold=state.keyframe_threshold,
            seed=state.seed,
            call=state.call + 1,
        )
        return following, finished

    @torch.no_grad()
    def decode(self, chunk: DenoisedChunk) -> Tensor:
        """Images of finished frames, with the portrait's detail where the model looks for it.

        Returns:
            (4, S, S, 3) uint8 on the CPU.
        """
        images = self.decode_images(rearrange(chunk.latents, "1 c f h w -> f c h w"))
        if self.networks.detail is not None:
            reference = chunk.reference
            images = add_detail(self.backend, images, chunk.features, reference.image, reference.pose, chunk.poses)
        pixels = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return HostCopy(rearrange(pixels, "f c h w -> f h w c").contiguous()).wait()

    def decode_images(self, latents: Tensor) -> Tensor:
        """(F, C, h, w) clean latents -> (F, 3, S, S) about [-1, 1], differentiable."""
        slices = latents.split(self.memory.decode_frames or len(latents))
        return torch.cat([self.backend.decode(part) for part in slices])

    # --- parts of a call ------------------------------------------------------------------------------

    def _enter(self, state: StreamState, conditioning: Conditioning, noise: Tensor | None) -> Tensor:
        """Latents of the entering chunk: the portrait's with noise of the highest level (weights).

        Models whose ``entry`` is "moved" begin with the portrait's head in the driver's pose instead (ours).
        """
        clean = entering_latents(state, conditioning, self.chunk_frames)
        noise = self._noise(noise, state.seed, state.call + 1, clean.shape)
        return self.schedule.add_noise(clean, noise, self.backend.timesteps(self.chunk_frames))

    def _noise(self, given: Tensor | None, seed: int, call: int, shape: torch.Size) -> Tensor:
        if given is None:
            return draw_noise(seed, call, tuple(shape), self.device)
        if given.shape != shape:
            raise InputError(f"noise of shape {tuple(given.shape)}: this model needs {tuple(shape)} here")
        return given.to(self.device, torch.float32)

    def _no_pose(self, latent: Tensor) -> Tensor:
        width = self.networks.denoising_unet.conv_in.out_channels
        return latent.new_zeros(1, width, 0, *latent.shape[-2:])
