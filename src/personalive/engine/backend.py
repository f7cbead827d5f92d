"""Network calls of a stream, each stated once as a module, and the backend that makes them.

A module takes tensors by position and gives a tuple of them. ``Backend`` runs the modules by torch; other runtimes
and the exports take the same ones (runtime/programs.py).

Letters: C latent channels, h w latent sides, S image side, s side of a network's own input, F frames in flight, N
images, D width of the image embedding, T motion tokens of width K, C0 first U-Net width, W width of the detail head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from personalive.engine.schedule import Schedule
from personalive.models.attention import KV
from personalive.models.networks import Networks
from personalive.models.unet import DenoisingUNet
from personalive.vision.keypoints import POSE_FIELDS, HeadPose


@dataclass(frozen=True)
class NetworkCall:
    """One call with the names of its tensors."""

    module: nn.Module
    inputs: tuple[str, ...]  # "reference" stands for the tensors of ``flatten_reference``
    outputs: tuple[str, ...]


def network_calls(networks: Networks, *, recompute: bool = False) -> dict[str, NetworkCall]:
    """Every call of a stream by name; ``flow_residual`` and ``blend_mask`` only where the model has a detail head.

    Args:
        networks: all on one device, in eval mode.
        recompute: save memory in training, see ``DenoisingUNet``; changes no number.
    """
    unet = networks.denoising_unet
    denoise_inputs = ("latents", "context", "motion", "pose", "reference")
    calls = {
        "denoise": NetworkCall(Denoise(networks, recompute=recompute), denoise_inputs, ("features", "prediction")),
        "decode": NetworkCall(Decode(networks), ("latents",), ("images",)),
        "encode": NetworkCall(Encode(networks), ("images",), ("latents",)),
        "project": NetworkCall(Project(networks), ("latent", "context"), reference_names(unet)),
        "extract": NetworkCall(_Method(networks.motion_extractor), ("images",), POSE_FIELDS),
        "motion_tokens": NetworkCall(_Method(networks.motion_encoder), ("faces",), ("tokens",)),
        "guide": NetworkCall(_Method(networks.pose_guider), ("canvas",), ("features",)),
    }
    if (head := networks.detail) is not None:
        flow_inputs, mask_inputs = ("features", "moved", "shift"), ("decoded", "found", "hidden")
        calls["flow_residual"] = NetworkCall(_Method(head, "flow_residual"), flow_inputs, ("hidden", "flow"))
        calls["blend_mask"] = NetworkCall(_Method(head, "blend_mask"), mask_inputs, ("mask",))
    return calls


def reference_names(unet: DenoisingUNet) -> tuple[str, ...]:
    """Names of the projected reference tensors, in the order of ``flatten_reference``."""
    return tuple(f"reference.{block}.{kind}" for block in unet.spatial_transformers() for kind in KV._fields)


def flatten_reference(reference: Mapping[str, KV], blocks: Sequence[str]) -> list[Tensor]:
    """Keys and values by turns, in the order of ``blocks``, the denoiser's; the order of the mapping is nothing."""
    return [tensor for block in blocks for tensor in reference[block]]


class Denoise(nn.Module):
    """One pass of the denoiser over all frames in flight, at the schedule's fixed timesteps.

    With fewer frames than the schedule has levels for, those are the highest ones.
    """

    def __init__(self, networks: Networks, *, recompute: bool = False, fixed_time: bool = False) -> None:
        """
        Args:
            fixed_time: compute here, once, what depends on time alone: for networks that learn no more.
        """
        super().__init__()
        self.unet, self.recompute = networks.denoising_unet, recompute
        self.chunk_frames = networks.config.chunk_frames
        self.blocks = list(self.unet.spatial_transformers())
        timesteps = Schedule(networks.config.schedule).timesteps(self.chunk_frames)
        self.register_buffer("timesteps", timesteps.to(self.unet.conv_in.weight.device))  # (1, F)
        with torch.no_grad():
            fixed = self.unet.embed_time(self.get_buffer("timesteps")) if fixed_time else {}
        self.resnets = list(fixed)
        for number, embedding in enumerate(fixed.values()):
            self.register_buffer(f"time_embedding_{number}", embedding)

    def forward(
        self, latents: Tensor, context: Tensor, motion: Tensor, pose: Tensor, *reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the denoiser.

        Args:
            latents: (1, C, F, h, w) at the levels of the schedule.
            context: (1, 1, D).
            motion: (1, F, T, K).
            pose: (1, C0, F, h, w).
            reference: as ``flatten_reference`` gives them.

        Returns:
            Last features of the chunk that leaves, (4, C0, h, w), and the prediction (1, C, F, h, w).
        """
        timesteps = self.timesteps_of(latents)
        first = self.get_buffer("timesteps").shape[1] - latents.shape[2]
        fixed = {name: self.get_buffer(f"time_embedding_{i}")[first:] for i, name in enumerate(self.resnets)}
        features = self.unet.features(
            latents,
            timesteps,
            context=context,
            motion=motion,
            pose=pose,
            reference={n: KV(*reference[2 * i : 2 * i + 2]) for i, n in enumerate(self.blocks)},
            recompute=self.recompute,
            time_embeddings=fixed or None,
        )
        return features[: self.chunk_frames], self.unet.prediction(features, latents.shape[2])

    def timesteps_of(self, latents: Tensor) -> Tensor:
        """(1, F) timesteps of (1, C, F, h, w) latents: the highest of the schedule's."""
        timesteps = self.get_buffer("timesteps")
        return timesteps[:, timesteps.shape[1] - latents.shape[2] :]


class Project(nn.Module):
    """Keys and values of a clean image, once per portrait or keyframe."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.reference, self.unet = networks.reference_unet, networks.denoising_unet
        self.blocks = list(self.unet.spatial_transformers())
        start = torch.zeros(1, 1, dtype=torch.long, device=self.unet.conv_in.weight.device)
        self.register_buffer("start", start)

    def forward(self, latent: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """(1, C, h, w), (1, 1, D) -> as ``flatten_reference`` gives them."""
        features = self.reference(latent, self.get_buffer("start"), context)
        return tuple(flatten_reference(self.unet.project_reference(features), self.blocks))


class Decode(nn.Module):
    """Images of clean latents, by the small decoder where there is one."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.decoder, self.scale = networks.decoder, networks.decoder.config.scaling_factor
        self.dtype = networks.denoising_unet.conv_in.weight.dtype

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        """(N, C, h, w) float32 -> (N, 3, S, S) about [-1, 1]."""
        return (self.decoder.decode((latents / self.scale).to(self.dtype), return_dict=False)[0],)


class Encode(nn.Module):
    """Latents of images: the posterior mean, scaled (weights)."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.vae, self.scale = networks.vae, networks.vae.config.scaling_factor

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(N, 3, S, S) in [-1, 1] -> (N, C, h, w)."""
        return (self.vae.encode(images, return_dict=False)[0].mean * self.scale,)


class _Method(nn.Module):
    """A method of a network as a call; its result, a tensor or several, becomes a tuple."""

    def __init__(self, network: nn.Module, method: str = "forward") -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        run: Any = self.network if self.method == "forward" else getattr(self.network, self.method)
        found = run(*tensors)
        if isinstance(found, Tensor):
            return (found,)
        return found if isinstance(found, tuple) else tuple(found.tensors())


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
        self._timesteps = Schedule(networks.config.schedule).timesteps(networks.config.chunk_frames).to(self.device)
        calls = network_calls(networks, recompute=recompute)
        self._calls: dict[str, Program] = {**{name: call.module for name, call in calls.items()}, **(programs or {})}
        self._blocks = list(networks.denoising_unet.spatial_transformers())

    def timesteps(self, frames: int) -> Tensor:
        """(1, F) timesteps of the newest ``frames`` frames in flight, cleanest first."""
        return self._timesteps[:, self._timesteps.shape[1] - frames :]

    def denoise(
        self, latents: Tensor, *, context: Tensor, motion: Tensor, pose: Tensor, reference: Mapping[str, KV]
    ) -> DenoiserOutput:
        """One pass over all frames in flight, see ``calls.Denoise``."""
        return DenoiserOutput(
            *self._calls["denoise"](latents, context, motion, pose, *flatten_reference(reference, self._blocks))
        )

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
