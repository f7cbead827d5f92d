"""The one engine: every film, live stream, export and training roll-out goes through ``Engine.advance``.

Letters as in state.py. Source: paper section 3.3 (micro-chunk streaming) and the released weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from personalive.config import FULL, KeyframeConfig, MemoryPreset
from personalive.errors import InputError
from personalive.models.bundle import Networks
from personalive.streaming.backends.base import Backend
from personalive.streaming.conditioning import PLAIN, Conditioner
from personalive.streaming.controls import Controls
from personalive.streaming.detail import add_detail
from personalive.streaming.keyframes import extend, is_keyframe
from personalive.streaming.memory import lay_to_rest
from personalive.streaming.schedule import Schedule
from personalive.streaming.state import Conditioning, Leaving, Motion, StreamState, draw_noise, entering_latents
from personalive.vision.keypoints import HeadPose
from personalive.vision.transfer import ToHost


class Engine:
    """Networks and a schedule. Knows nothing of any stream: states go in and come out as values."""

    def __init__(
        self,
        networks: Networks,
        *,
        backend: Backend | None = None,
        memory: MemoryPreset = FULL,
        name: str = "",
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            networks: all on one device, in eval mode; what rests by ``memory`` may be on the CPU already.
            backend: what runs them; None is torch plainly.
            memory: what is saved of the device's.
            name: which weights these are, for reports.
            folder: where they came from; a face detector may lie beside them.
        """
        self.networks = networks
        self.name, self.folder = name, folder
        self.backend = backend or Backend(networks)
        self.config, self.memory = networks.config, memory
        for part, module in networks.modules().items():
            lay_to_rest(self.config, memory, part, module)
        self.conditioner = Conditioner(self.backend)
        self.device = self.conditioner.device
        self.dtype = self.conditioner.dtype
        self.schedule = Schedule(self.config.schedule, self.device)
        self._timesteps = self.backend.timesteps  # (1, F)

    @property
    def image_size(self) -> int:
        """Side in pixels of the frames this model makes."""
        return self.config.image_size_px

    @property
    def chunk_frames(self) -> int:
        """Driving frames per step, and frames per result."""
        return self.config.chunk_frames

    @property
    def warmup_frames(self) -> int:
        """Frames of ease-in that leave before the first driving frame does."""
        return self.config.warmup_frames

    # --- the stream -----------------------------------------------------------------------------------

    @torch.no_grad()
    def start(
        self,
        portrait: np.ndarray,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
        keyframe_threshold: float = KeyframeConfig.threshold,
    ) -> StreamState:
        """Begin a stream.

        Args:
            portrait: (H, W, 3) uint8 RGB, square and already framed.
            seed: decides all noise of the stream that is not given.
            noise: (1, C, warm-up frames, h, w) instead of the engine's own draw.
            keyframe_threshold: motion distance above which a leaving frame becomes a keyframe (tau); infinity
                turns keyframes off.

        Raises:
            InputError: a portrait or noise of the wrong shape or kind, or a threshold that is no number.
        """
        _check_square(portrait, (3,), "portrait")
        if seed < 0:
            raise InputError(f"seed {seed}: give a whole number from 0 up")
        if math.isnan(keyframe_threshold) or keyframe_threshold < 0:
            raise InputError(f"keyframe threshold {keyframe_threshold}: give a number from 0 up, or infinity")
        reference = self.conditioner.reference(portrait)
        clean = reference.latent.float()[:, :, None].expand(-1, -1, self.warmup_frames, -1, -1)
        noise = self._noise(noise, seed, 0, clean.shape)
        return StreamState(
            reference=reference,
            latents=self.schedule.add_noise(clean, noise, self._timesteps[:, : self.warmup_frames]),
            motion=reference.motion[:, :0],
            pose=self._no_pose(reference.latent),
            poses=reference.pose[:0],
            driver=None,
            bank=(ToHost(reference.motion),),
            leads=(),
            keyframe_threshold=keyframe_threshold,
            seed=seed,
            call=0,
        )

    @torch.no_grad()
    def read(self, frames: np.ndarray) -> Motion:
        """What driving frames say: motion that ``step`` takes in their place, may be kept, and fits any portrait.

        Args:
            frames: (F, H, W, 3) uint8 RGB, square and already framed.

        Raises:
            InputError: frames of the wrong shape or kind.
        """
        _check_square(frames, (len(frames) if isinstance(frames, np.ndarray) else 0, 3), "frames")
        return self.conditioner.read(frames)

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

        The frames that leave were driven by the window three calls ago; the first three chunks of a stream
        are the ease-in from the portrait. Arguments and errors as ``submit``.

        Returns:
            The next state, and frames (4, S, S, 3) uint8 on the CPU.
        """
        state, frames = self.submit(state, window, noise, cut=cut, controls=controls)
        return state, frames.wait()

    @torch.no_grad()
    def submit(
        self,
        state: StreamState,
        window: np.ndarray | Motion,
        noise: Tensor | None = None,
        *,
        cut: int | None = None,
        controls: Controls = PLAIN,
    ) -> tuple[StreamState, ToHost]:
        """``step`` without waiting for the frames: on CUDA they are made while the caller does something else.

        Args:
            window: (4, H, W, 3) uint8 RGB, square and already framed, or the motion read from such frames.
            noise: (1, C, 4, h, w) instead of the engine's own draw.
            cut: number of the window's frame that begins a new shot of the driver, if one does: from there on
                the driver's place is measured from that frame.
            controls: how the motion of this window reaches the portrait.

        Returns:
            The next state, and frames (4, S, S, 3) uint8 on their way to the CPU.

        Raises:
            InputError: a window or noise of the wrong shape or kind, or a cut outside the window.
        """
        if isinstance(window, Motion):
            self._check_motion(window)
        else:
            _check_square(window, (self.chunk_frames, 3), "window")
        if cut is not None and not 0 <= cut < self.chunk_frames:
            raise InputError(f"cut {cut}: give the number of a frame of the window, 0 to {self.chunk_frames - 1}")
        motion = window if isinstance(window, Motion) else self.conditioner.read(window)
        state, leaving = self.advance(state, self.conditioner.follow(state, motion, cut, controls), noise)
        return state, self._pictures(leaving)

    @torch.no_grad()
    def flush(self, state: StreamState) -> Iterator[Tensor]:
        """Drain the window: the chunks still in flight, each (4, S, S, 3) uint8; nothing before a first step."""
        if state.driver is None:
            return
        for _ in range(self.warmup_frames // self.chunk_frames):
            state, leaving = self.advance(state, self.conditioner.repeat_last(state))
            yield self.decode(leaving)

    def advance(
        self, state: StreamState, conditioning: Conditioning, noise: Tensor | None = None
    ) -> tuple[StreamState, Leaving]:
        """One call of the denoiser over all frames in flight; differentiable, latents only.

        Returns:
            The next state, and the frames that leave.
        """
        count = self.chunk_frames
        motion = torch.cat([state.motion, conditioning.motion], dim=1)
        pose = torch.cat([state.pose, conditioning.pose], dim=2)
        latents = torch.cat([state.latents, self._enter(state, conditioning, noise)], dim=2)
        # The host decides about a frame when it leaves, by what was sent to it when the frame entered.
        leads = (*state.leads, *(ToHost(chunk[:, :1]) for chunk in conditioning.motion.split(count, dim=1)))
        keeps = self._is_keyframe(state, leads[0])
        features, prediction = self.backend.denoise(
            latents.to(self.dtype),
            context=state.reference.context,
            motion=motion,
            pose=pose,
            reference=state.reference.kv,
        )
        stepped = self.schedule.step(prediction.float(), latents, self._timesteps)
        poses = HeadPose.cat([state.poses, conditioning.poses])
        leaving = Leaving(stepped.original[:, :, :count], features, poses[:count], state.reference)
        reference, bank = state.reference, state.bank
        if keeps:
            kv = self.backend.project(leaving.latents[:, :, 0], reference.context)
            reference, bank = extend(reference, kv), (*bank, leads[0])
        following = StreamState(
            reference=reference,
            latents=stepped.previous[:, :, count:],
            motion=motion[:, count:],
            pose=pose[:, :, count:],
            poses=poses[count:],
            driver=conditioning.driver,
            bank=bank,
            leads=leads[1:],
            keyframe_threshold=state.keyframe_threshold,
            seed=state.seed,
            call=state.call + 1,
        )
        return following, leaving

    @torch.no_grad()
    def decode(self, leaving: Leaving) -> Tensor:
        """Finished frames as pictures, with the portrait's detail where the model looks for it.

        Returns:
            (4, S, S, 3) uint8 on the CPU.
        """
        return self._pictures(leaving).wait()

    @torch.no_grad()
    def _pictures(self, leaving: Leaving) -> ToHost:
        with self.backend.beside.work(*leaving.tensors()):
            return self._finished(leaving)

    def _finished(self, leaving: Leaving) -> ToHost:
        images = self.decode_images(rearrange(leaving.latents, "1 c f h w -> f c h w"))
        if self.networks.detail is not None:
            reference = leaving.reference
            images = add_detail(
                self.backend, images, leaving.features, reference.picture, reference.pose, leaving.poses
            )
        bytes_ = (images.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return ToHost(rearrange(bytes_, "f c h w -> f h w c").contiguous())

    def decode_images(self, latents: Tensor) -> Tensor:
        """(F, C, h, w) clean latents -> (F, 3, S, S) about [-1, 1], differentiable."""
        slices = latents.split(self.memory.decode_frames or len(latents))
        return torch.cat([self.backend.decode(part) for part in slices])

    # --- parts of a call ------------------------------------------------------------------------------

    def _enter(self, state: StreamState, conditioning: Conditioning, noise: Tensor | None) -> Tensor:
        """The fresh chunk: the portrait's latent with noise of the highest level (weights).

        Models whose ``entry`` is "moved" begin with the portrait's head in the driver's pose instead (ours).
        """
        clean = entering_latents(state, conditioning, self.chunk_frames)
        noise = self._noise(noise, state.seed, state.call + 1, clean.shape)
        return self.schedule.add_noise(clean, noise, self._timesteps[:, -self.chunk_frames :])

    def _is_keyframe(self, state: StreamState, motion: ToHost) -> bool:
        """Whether the first frame that leaves with this call becomes a further reference picture."""
        return is_keyframe(
            self.config.keyframes,
            bank=state.bank,
            leaving=motion,
            call=state.call + 1,
            threshold=state.keyframe_threshold,
        )

    def _noise(self, given: Tensor | None, seed: int, call: int, shape: torch.Size) -> Tensor:
        if given is None:
            return draw_noise(seed, call, tuple(shape), self.device)
        if given.shape != shape:
            raise InputError(f"noise of shape {tuple(given.shape)}: this model needs {tuple(shape)} here")
        return given.to(self.device, torch.float32)

    def _check_motion(self, motion: Motion) -> None:
        encoder = self.config.motion_encoder
        wanted = (1, self.chunk_frames, encoder.tokens, encoder.token_width)
        if (found := tuple(motion.tokens.shape)) != wanted:
            raise InputError(f"motion with tokens {found}: this model needs {wanted}, read by itself or its kind")

    def _no_pose(self, latent: Tensor) -> Tensor:
        width = self.networks.denoising_unet.conv_in.out_channels
        return latent.new_zeros(1, width, 0, *latent.shape[-2:])


def _check_square(pictures: np.ndarray, ends: tuple[int, ...], what: str) -> None:
    """``ends`` is (3,) for one picture or (frames, 3) for several."""
    wanted = ("S", "S", 3) if len(ends) == 1 else (ends[0], "S", "S", 3)
    fine = (
        isinstance(pictures, np.ndarray)
        and pictures.dtype == np.uint8
        and pictures.ndim == len(wanted)
        and pictures.shape[-1] == 3
        and pictures.shape[-2] == pictures.shape[-3] > 0
        and pictures.shape[:-3] == ends[:-1]
    )
    if not fine:
        found = f"{getattr(pictures, 'dtype', type(pictures).__name__)} {getattr(pictures, 'shape', '')}".strip()
        shape = f"({', '.join(map(str, wanted))})"
        raise InputError(f"{what} must be uint8 RGB of shape {shape}, found {found}: frame it first")
