"""Network calls of a stream as the engine makes them, whichever runtime computes them.

Letters as in calls.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from personalive.engine.calls import flatten_reference, network_calls
from personalive.engine.schedule import Schedule
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.vision.keypoints import HeadPose

Program = Callable[..., Sequence[Tensor]]
"""A network call by another runtime: tensors by position in, tensors out; may be called from any thread."""


class DenoiserOutput(NamedTuple):
    """Result of one pass of the denoiser."""

    features: Tensor  # (4, C0, h, w) the last ones of the chunk that leaves
    prediction: Tensor  # (1, C, F, h, w)


class Backend:
    """Every network call of a stream. Those without a program are run by torch: any device, differentiable."""

    def __init__(
        self,
        networks: Networks,
        programs: Mapping[str, Program] | None = None,
        *,
        name: str = "eager",
        precision: torch.dtype | None = None,
        recompute: bool = False,
    ) -> None:
        """
        Args:
            networks: all on one device, in eval mode.
            programs: by the names of ``network_calls``; they give no gradients.
            name: of the runtime, for reports.
            precision: dtype of most arithmetic; None: that of the networks.
            recompute: save memory in training, see ``DenoisingUNet``; changes no number.
        """
        self.networks, self.name = networks, name
        weight = networks.denoising_unet.conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype
        self.precision = precision or self.dtype
        self.timesteps = Schedule(networks.config.schedule).timesteps(networks.config.chunk_frames).to(self.device)
        calls = network_calls(networks, recompute=recompute)
        self._calls: dict[str, Program] = {**{name: call.module for name, call in calls.items()}, **(programs or {})}
        self._blocks = list(networks.denoising_unet.spatial_transformers())

    def denoise(
        self, latents: Tensor, *, context: Tensor, motion: Tensor, pose: Tensor, reference: Mapping[str, KV]
    ) -> DenoiserOutput:
        """One pass over all frames in flight, see ``calls.Denoise``."""
        return DenoiserOutput(*self._calls["denoise"](latents, context, motion, pose, *flatten_reference(reference)))

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h, w) clean latents, float32 -> (N, 3, S, S) about [-1, 1]."""
        return self._calls["decode"](latents)[0]

    def encode(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> (N, C, h, w) latents: the posterior mean, scaled (weights)."""
        return self._calls["encode"](images)[0]

    def project(self, latent: Tensor, context: Tensor) -> dict[str, KV]:
        """Keys and values by block of a clean image's (1, C, h, w), (1, 1, D); once per portrait or keyframe."""
        tokens = self._calls["project"](latent.to(self.dtype), context)
        return {block: KV(*tokens[2 * i : 2 * i + 2]) for i, block in enumerate(self._blocks)}

    def extract(self, images: Tensor) -> HeadPose:
        """(N, 3, s, s) in [0, 1] -> N poses."""
        return HeadPose(*self._calls["extract"](images))

    def motion_tokens(self, faces: Tensor) -> Tensor:
        """(N, 3, s, s) in [-1, 1] -> (N, T, K)."""
        return self._calls["motion_tokens"](faces)[0]

    def guide(self, canvas: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, C0, h, w)."""
        return self._calls["guide"](canvas)[0]

    def flow_residual(self, features: Tensor, moved: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """``DetailHead.flow_residual``; only where the model has that head."""
        hidden, flow = self._calls["flow_residual"](features, moved, shift)
        return hidden, flow

    def blend_mask(self, decoded: Tensor, found: Tensor, hidden: Tensor) -> Tensor:
        """``DetailHead.blend_mask``; only where the model has that head."""
        return self._calls["blend_mask"](decoded, found, hidden)[0]
