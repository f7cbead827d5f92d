"""The networks as pure functions of tensors with names and known shapes: what compilers and other runtimes take in.

Letters as in base.py; R reference pictures.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from personalive.config import BackendConfig, KeyframeConfig
from personalive.models.attention import KV
from personalive.models.bundle import Networks
from personalive.models.unet import DenoisingUNet
from personalive.streaming.backends.base import Backend
from personalive.streaming.detail import HALVING
from personalive.streaming.schedule import Schedule

REFERENCES = tuple(range(1, KeyframeConfig.maximum + 2))  # counts of reference pictures that a stream meets
PICTURING = ("decode", "correction", "trust")  # make pictures of finished frames; the others lead to the next call


@dataclass(frozen=True)
class Graph:
    """A module whose forward takes tensors by position and gives a tensor or a tuple of them."""

    module: nn.Module
    inputs: dict[str, Tensor]  # examples, in order
    outputs: tuple[str, ...]
    dynamic: Mapping[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    """By input and axis: the name of a count that varies, and the axis' length over that count."""

    @property
    def device(self) -> torch.device:
        """Of the inputs and the module."""
        return next(iter(self.inputs.values())).device

    @property
    def counts(self) -> set[str]:
        """Which counts vary: "n" pictures, "r" reference pictures."""
        return {count for axes in self.dynamic.values() for count, _ in axes.values()}

    def shape(self, name: str, count: int) -> list[int]:
        """Of an input where so many pictures or reference pictures are given."""
        shape = list(self.inputs[name].shape)
        for axis, (_, unit) in self.dynamic.get(name, {}).items():
            shape[axis] = count * unit
        return shape

    def examples(self, count: int) -> list[Tensor]:
        """Inputs for that count, uniform in [0, 1)."""
        generator = torch.Generator().manual_seed(count)
        return [torch.rand(self.shape(n, count), generator=generator).to(t) for n, t in self.inputs.items()]


def graphs(backend: Backend) -> dict[str, Graph]:
    """Every call of a stream, by the name of the backend's method."""
    networks, dtype, device = backend.networks, backend.dtype, backend.device
    config, unet = networks.config, networks.denoising_unet
    size, count = config.image_size_px, backend.leaving
    frames = backend.timesteps.shape[1]
    side = size // 2 ** (len(networks.vae.config.block_out_channels) - 1)
    tokens = (config.motion_encoder.tokens, config.motion_encoder.token_width)
    channels, width = unet.conv_in.in_channels, unet.conv_in.out_channels

    def example(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    def pictures(module: nn.Module, inputs: Mapping[str, Tensor], *outputs: str) -> Graph:
        return Graph(module, dict(inputs), outputs, {name: {0: ("n", 1)} for name in inputs})

    face, small = config.motion_encoder.face_size_px, config.motion_extractor.input_size_px
    canvas = config.pose_guider.canvas_size_px
    found = {
        "denoise": _denoise_graph(
            backend,
            {
                "latents": example(1, channels, frames, side, side),
                "context": example(1, 1, networks.unet_config.context_width),
                "motion": example(1, frames, *tokens),
                "pose": example(1, width, frames, side, side),
            },
        ),
        "decode": pictures(_Decode(networks), {"latents": example(count, channels, side, side).float()}, "images"),
        "project": Graph(
            Project(networks),
            {
                "latent": example(1, channels, side, side),
                "context": example(1, 1, networks.unet_config.context_width),
            },
            reference_names(unet),
        ),
        "encode": pictures(_Encode(networks), {"images": example(count, 3, size, size)}, "latents"),
        "extract": pictures(_Extract(networks), {"images": example(count, 3, small, small)}, *_Extract.FIELDS),
        "motion_tokens": pictures(networks.motion_encoder, {"faces": example(count, 3, face, face)}, "tokens"),
        "guide": pictures(networks.pose_guider, {"canvas": example(count, 3, canvas, canvas)}, "features"),
    }
    if next(networks.vae.encoder.parameters()).device != device:  # it rests elsewhere; torch runs it when it comes
        del found["encode"]
    if (head := networks.detail) is not None:
        half = size // HALVING
        moved = {"moved": example(count, 3, half, half), "shift": example(count, 2, side, side)}
        features = {"features": example(count, width, side, side)}
        shown = {name: example(count, 3, size, size) for name in ("decoded", "found")}
        hidden = {"hidden": example(count, head.conv_in.out_channels, side, side)}
        found["correction"] = pictures(_Method(head, "correction"), features | moved, "hidden", "flow")
        found["trust"] = pictures(_Method(head, "trust"), shown | hidden, "trust")
    return found


def exported(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as one program, for every count of pictures and references."""
    limits = {"n": BackendConfig.max_pictures, "r": REFERENCES[-1]}
    dims = {name: torch.export.Dim(name, min=1, max=limit) for name, limit in limits.items()}
    shapes: list[Any] = [
        {axis: count * dims[name] for axis, (name, count) in graph.dynamic.get(key, {}).items()}
        for key in graph.inputs
    ]
    parameters = inspect.signature(graph.module.forward).parameters.values()
    named = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    if named < len(parameters):  # the rest is one argument to the exporter
        shapes = [*shapes[:named], tuple(shapes[named:])]
    with torch.no_grad():
        return torch.export.export(
            graph.module.eval(), tuple(graph.inputs.values()), dynamic_shapes=tuple(shapes), strict=False
        )


def reference_names(unet: DenoisingUNet) -> tuple[str, ...]:
    """What the projected reference tensors are called, in the order of ``flat``."""
    return tuple(f"reference.{block}.{kind}" for block in unet.spatial_transformers() for kind in KV._fields)


def listed(found: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """What a graph's module gives, one tensor or several, as a list."""
    return [found] if isinstance(found, Tensor) else list(found)


def flat(reference: Mapping[str, KV]) -> list[Tensor]:
    """Keys and values by turns, in the order of the denoiser's blocks."""
    return [tensor for kv in reference.values() for tensor in kv]


class Denoise(nn.Module):
    """The denoiser at the schedule's fixed levels: what depends on time alone is computed once, here."""

    def __init__(self, unet: DenoisingUNet, timesteps: Tensor, leaving: int) -> None:
        super().__init__()
        self.unet, self.leaving = unet, leaving
        self.blocks = list(unet.spatial_transformers())
        self.register_buffer("timesteps", timesteps)
        with torch.no_grad():
            shifts = unet.time_shifts(timesteps)
        self.resnets = list(shifts)
        for number, shift in enumerate(shifts.values()):
            self.register_buffer(f"shift_{number}", shift)

    def forward(
        self, latents: Tensor, context: Tensor, motion: Tensor, pose: Tensor, *reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``Backend.denoise``, the reference by ``flat``."""
        features = self.unet.features(
            latents,
            self.get_buffer("timesteps"),
            context=context,
            motion=motion,
            pose=pose,
            reference={n: KV(*reference[2 * i : 2 * i + 2]) for i, n in enumerate(self.blocks)},
            shifts={name: self.get_buffer(f"shift_{number}") for number, name in enumerate(self.resnets)},
        )
        return features[: self.leaving], self.unet.prediction(features, latents.shape[2])


class Call(nn.Module):
    """A whole call, as ``Engine.advance`` and ``decode`` make it: denoise, step the schedule, decode what leaves."""

    def __init__(self, networks: Networks, denoise: Denoise) -> None:
        super().__init__()
        self.denoiser, self.decode = denoise, _Decode(networks)
        self.schedule = Schedule(networks.config.schedule)

    def forward(
        self, latents: Tensor, context: Tensor, motion: Tensor, pose: Tensor, *reference: Tensor
    ) -> tuple[Tensor, ...]:
        """Latents (1, C, F, h, w) float32 -> images, their features and latents, and the latents that stay."""
        timesteps, count = self.denoiser.get_buffer("timesteps"), self.denoiser.leaving
        features, prediction = self.denoiser(latents.to(motion.dtype), context, motion, pose, *reference)
        stepped = self.schedule.step(prediction.float(), latents, timesteps)
        clean = rearrange(stepped.original[:, :, :count], "1 c f h w -> f c h w")
        return self.decode(clean), features, clean, stepped.previous[:, :, count:]


def call_graph(networks: Networks, denoise: Graph) -> Graph:
    """The whole call from the graph of its denoiser, for exports. Detail is not looked for: see ``correction``."""
    assert isinstance(denoise.module, Denoise)
    inputs = {name: t.float() if name == "latents" else t for name, t in denoise.inputs.items()}
    return Graph(Call(networks, denoise.module), inputs, ("images", "features", "clean", "previous"), denoise.dynamic)


class Project(nn.Module):
    """A picture's clean latent to keys and values, by ``flat``: as ``Backend.project``."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.reference, self.unet = networks.reference_unet, networks.denoising_unet
        start = torch.zeros(1, 1, dtype=torch.long, device=self.unet.conv_in.weight.device)
        self.register_buffer("start", start)

    def forward(self, latent: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        features = self.reference(latent, self.get_buffer("start"), context)
        return tuple(flat(self.unet.project_reference(features)))


@torch.no_grad()
def _denoise_graph(backend: Backend, inputs: dict[str, Tensor]) -> Graph:
    unet = backend.networks.denoising_unet
    tokens = flat(backend.project(inputs["latents"][:, :, 0], inputs["context"]))
    dynamic = {}
    for name, tensor in zip(reference_names(unet), tokens, strict=True):
        inputs[name] = torch.cat([tensor, tensor], dim=1)
        dynamic[name] = {1: ("r", tensor.shape[1])}
    return Graph(Denoise(unet, backend.timesteps, backend.leaving), inputs, ("features", "prediction"), dynamic)


class _Decode(nn.Module):
    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.decoder, self.scale = networks.decoder, networks.decoder.config.scaling_factor
        self.dtype = networks.denoising_unet.conv_in.weight.dtype

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder.decode((latents / self.scale).to(self.dtype), return_dict=False)[0]


class _Encode(nn.Module):
    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.vae, self.scale = networks.vae, networks.vae.config.scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        return self.vae.encode(images, return_dict=False)[0].mean * self.scale


class _Extract(nn.Module):
    FIELDS = ("kp", "yaw", "pitch", "roll", "t", "scale")

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.extractor = networks.motion_extractor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pose = self.extractor(images)
        return tuple(getattr(pose, name) for name in self.FIELDS)


class _Method(nn.Module):
    """Another method of a module as its forward."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        return getattr(self.module, self.method)(*tensors)
