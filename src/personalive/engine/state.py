"""Values that a stream is made of. The engine keeps none of them.

Letters: C latent channels, h w latent sides, C0 first U-Net width, T motion tokens of width K, S image side, R
reference images (the portrait and its keyframes), N tokens of a spatial block, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from personalive.device import HostCopy, to_device
from personalive.models.attention import KV
from personalive.vision.keypoints import HeadPose, interpolate


@dataclass(frozen=True, slots=True)
class Reference:
    """A portrait as the denoiser attends to it: built once, extended by each keyframe."""

    image: Tensor  # (1, 3, S, S) in [-1, 1], at the model's size
    context: Tensor  # (1, 1, D) image embedding
    latent: Tensor  # (1, C, h, w)
    kv: Mapping[str, KV]  # by spatial block: projected keys and values, (1, R*N, C_i)
    pose: HeadPose  # the portrait's own, one row
    motion: Tensor  # (1, 1, T, K) the portrait's own


@dataclass(frozen=True, slots=True)
class StreamState:
    """Everything of one stream between two calls. Its number of denoising steps shows in the frames in flight."""

    reference: Reference
    latents: Tensor  # (1, C, warm-up frames, h, w) float32, in flight, cleanest first; none with one step
    motion: Tensor  # (1, warm-up frames, T, K); no frames before the first call
    pose: Tensor  # (1, C0, warm-up frames, h, w); no frames before the first call
    poses: HeadPose  # the same frames' head poses on the portrait, warm-up frames or none
    newest: Motion | None  # of the last frame that entered, on the portrait, one frame; none before the first call
    driver: HeadPose | None  # the first driving frame: later motion is relative to it
    bank: tuple[HostCopy, ...]  # R motion embeddings (1, 1, T, K), of the portrait and the keyframes
    keyframe_candidates: tuple[HostCopy, ...]  # those of the first frame of each chunk in flight; none at first
    keyframe_threshold: float
    seed: int
    call: int  # finished calls

    @property
    def warmup_frames(self) -> int:
        """Frames in flight between two calls, which are the ease-in at first; a chunk for each step but the last."""
        return self.latents.shape[2]

    @property
    def keyframes(self) -> int:
        """Stored keyframes, the portrait not counted."""
        return len(self.bank) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Identity-agnostic motion of F driving frames, before retargeting."""

    tokens: Tensor  # (1, F, T, K) motion tokens of the faces
    poses: HeadPose  # F, as found in the frames

    def __len__(self) -> int:
        return self.tokens.shape[1]

    def __getitem__(self, index: slice) -> Motion:
        return Motion(self.tokens[:, index], self.poses[index])

    @staticmethod
    def cat(parts: Sequence[Motion]) -> Motion:
        """All frames, one part after another."""
        return Motion(torch.cat([p.tokens for p in parts], dim=1), HeadPose.cat([p.poses for p in parts]))

    def between(self, low: Tensor, high: Tensor, weights: Tensor) -> Motion:
        """Frames ``low`` (n,) blended with frames ``high`` (n,) by ``weights`` (n,): 0 gives ``low``, 1 ``high``."""
        share = weights.to(self.tokens)[None, :, None, None]
        tokens = torch.lerp(self.tokens[:, low], self.tokens[:, high], share)
        return Motion(tokens, interpolate(self.poses[low], self.poses[high], weights.to(self.poses.yaw)))


@dataclass(frozen=True, slots=True)
class Window:
    """One chunk of driving for ``Engine.stream``."""

    driver: np.ndarray | Motion  # (4, H, W, 3) uint8 RGB, square and framed, or their motion
    cut: int | None = None  # number of the frame that begins a new shot of the driver


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Conditions of the frames that enter with one call; n is 4, and 16 in the first call."""

    motion: Tensor  # (1, n, T, K)
    pose: Tensor  # (1, C0, n, h, w)
    poses: HeadPose  # n, on the portrait
    driver: HeadPose | None  # the first driving frame of the stream
    entering: Tensor | None = None  # (1, C, 4 or more, h, w) clean latents they enter as; None: the portrait's


@dataclass(frozen=True, slots=True)
class DenoisedChunk:
    """Frames that one call finished, and what their detail is found with."""

    latents: Tensor  # (1, C, 4, h, w) clean, float32
    features: Tensor  # (4, C0, h, w) the denoiser's last ones
    poses: HeadPose  # 4, on the portrait
    reference: Reference  # of the portrait that they show


def entering_latents(state: StreamState, conditioning: Conditioning, count: int) -> Tensor:
    """Clean latents of the ``count`` frames that enter next, (1, C, count, h, w) float32."""
    if conditioning.entering is not None:
        return conditioning.entering[:, :, -count:].float()
    return state.reference.latent.float()[:, :, None].expand(-1, -1, count, -1, -1)


def draw_noise(seed: int, call: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Noise of one call, which depends on (seed, call) alone, on every device.

    ``call`` 0 is the start. Drawn on the CPU in float32, then moved.
    """
    mixed = np.random.SeedSequence((seed, call)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
    return to_device(torch.randn(shape, generator=generator), device)
