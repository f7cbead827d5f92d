"""Network calls with example inputs and names for what varies: what exporters and other runtimes take in.

Letters as in engine/backend.py; n images, r reference images, s denoising steps of the frames in flight.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from personalive.config import KeyframeConfig
from personalive.engine.backend import Backend, Denoise, NetworkCall, Program, network_calls, reference_names
from personalive.engine.schedule import Schedule
from personalive.models.detail import HALVING
from personalive.models.networks import Networks

REFERENCES = tuple(range(1, KeyframeConfig.maximum + 2))  # counts of reference images that a stream meets
MAX_IMAGES = 32  # that a program is given at once


@dataclass(frozen=True)
class ProgramSpec:
    """A module whose forward takes tensors by position and gives a tuple of them."""

    module: nn.Module
    inputs: dict[str, Tensor]  # examples, in order
    outputs: tuple[str, ...]
    dynamic: Mapping[str, dict[int, tuple[str, int]]] = field(default_factory=dict)
    """By input and axis: the name of a count that varies, and the axis' length over that count."""

    @property
    def device(self) -> torch.device:
        """Device of the inputs and the module."""
        return next(iter(self.inputs.values())).device

    @property
    def per_image(self) -> bool:
        """True where the first axis of every input counts images."""
        return all(self.dynamic.get(name, {}).get(0) == ("n", 1) for name in self.inputs)

    @property
    def step_axes(self) -> list[tuple[str, int, int]]:
        """Inputs and their axes whose length follows the number of denoising steps, and that length of one step."""
        return [
            (name, axis, unit)
            for name, axes in self.dynamic.items()
            for axis, (count, unit) in axes.items()
            if count == "s"
        ]

    @property
    def max_steps(self) -> int:
        """Most denoising steps that the inputs may be for; 1 where they do not depend on them."""
        return max((self.inputs[name].shape[axis] // unit for name, axis, unit in self.step_axes), default=1)

    def shape(self, name: str, steps: int) -> list[int]:
        """Shape of an input for so many denoising steps; -1 on its other axes that vary."""
        shape = list(self.inputs[name].shape)
        for axis, (count, unit) in self.dynamic.get(name, {}).items():
            shape[axis] = steps * unit if count == "s" else -1
        return shape

    def examples(self, count: int, steps: int | None = None) -> list[Tensor]:
        """Inputs, uniform in [0, 1), for so many images or reference images and steps; None: the most."""
        generator = torch.Generator().manual_seed(count)
        counts = {"n": count, "r": count, "s": steps or self.max_steps}
        examples = []
        for name, example in self.inputs.items():
            shape = list(example.shape)
            for axis, (varies, unit) in self.dynamic.get(name, {}).items():
                shape[axis] = counts[varies] * unit
            examples.append(torch.rand(shape, generator=generator).to(example))
        return examples


@torch.no_grad()
def program_specs(networks: Networks) -> dict[str, ProgramSpec]:
    """Every call of a stream that can become a program, by name; without encoders that are off the device."""
    calls = network_calls(networks)
    inputs = _example_inputs(networks)
    if next(networks.vae.encoder.parameters()).device != inputs["latents"].device:
        del calls["encode"]  # it is elsewhere; torch runs it when it comes
    calls["denoise"] = NetworkCall(
        Denoise(networks, fixed_time=True), calls["denoise"].inputs, calls["denoise"].outputs
    )
    specs = {}
    for name, call in calls.items():
        shown = {key: inputs.get(f"{name}.{key}", inputs.get(key)) for key in call.inputs if key != "reference"}
        examples = {key: tensor for key, tensor in shown.items() if tensor is not None}
        per_image = {} if name in ("denoise", "project") else {key: {0: ("n", 1)} for key in examples}
        specs[name] = ProgramSpec(call.module, examples, call.outputs, per_image)
    return {**specs, "denoise": _denoise_spec(networks, specs["denoise"], specs["project"])}


def _example_inputs(networks: Networks) -> dict[str, Tensor]:
    """Zeros by input name, or by ``call.input`` where calls share a name."""
    config, unet = networks.config, networks.denoising_unet
    weight = unet.conv_in.weight
    size, count, frames = config.image_size_px, config.chunk_frames, config.window_frames
    side = size // 2 ** (len(networks.vae.config.block_out_channels) - 1)
    channels, width = unet.conv_in.in_channels, unet.conv_in.out_channels
    face, small = config.motion_encoder.face_size_px, config.motion_extractor.input_size_px
    canvas, half = config.pose_guider.canvas_size_px, size // HALVING
    shapes = {
        "latents": (1, channels, frames, side, side),
        "context": (1, 1, networks.unet_config.context_width),
        "motion": (1, frames, config.motion_encoder.tokens, config.motion_encoder.token_width),
        "pose": (1, width, frames, side, side),
        "latent": (1, channels, side, side),
        "images": (count, 3, size, size),
        "extract.images": (count, 3, small, small),
        "faces": (count, 3, face, face),
        "canvas": (count, 3, canvas, canvas),
        "features": (count, width, side, side),
        "moved": (count, 3, half, half),
        "shift": (count, 2, side, side),
        "decoded": (count, 3, size, size),
        "found": (count, 3, size, size),
        "hidden": (count, networks.detail.conv_in.out_channels if networks.detail else 0, side, side),
    }
    examples = {name: torch.zeros(shape, dtype=weight.dtype, device=weight.device) for name, shape in shapes.items()}
    return {**examples, "decode.latents": torch.zeros(count, channels, side, side, device=weight.device)}


def _denoise_spec(networks: Networks, denoise: ProgramSpec, project: ProgramSpec) -> ProgramSpec:
    """The denoiser's spec with examples of two reference images; their number varies, and that of the steps."""
    tokens = project.module(*project.inputs.values())
    chunk, inputs = networks.config.chunk_frames, dict(denoise.inputs)
    dynamic: dict[str, dict[int, tuple[str, int]]] = {}
    if len(networks.config.schedule.levels) > 1:
        dynamic = {"latents": {2: ("s", chunk)}, "motion": {1: ("s", chunk)}, "pose": {2: ("s", chunk)}}
    for name, tensor in zip(reference_names(networks.denoising_unet), tokens, strict=True):
        inputs[name] = torch.cat([tensor, tensor], dim=1)
        dynamic[name] = {1: ("r", tensor.shape[1])}
    return ProgramSpec(denoise.module, inputs, denoise.outputs, dynamic)


class WholeCall(nn.Module):
    """A whole call, as ``Engine.advance`` and ``decode`` make it: denoise, step the schedule, decode what leaves."""

    def __init__(self, networks: Networks, denoise: Denoise, decode: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.decode = denoise, decode
        self.schedule = Schedule(networks.config.schedule)

    def forward(
        self, latents: Tensor, context: Tensor, motion: Tensor, pose: Tensor, *reference: Tensor
    ) -> tuple[Tensor, ...]:
        """Latents (1, C, F, h, w) float32 -> images, their features and latents, and the latents that stay."""
        timesteps, count = self.denoiser.timesteps_of(latents), self.denoiser.chunk_frames
        features, prediction = self.denoiser(latents.to(motion.dtype), context, motion, pose, *reference)
        stepped = self.schedule.step(prediction.float(), latents, timesteps)
        clean = rearrange(stepped.original[:, :, :count], "1 c f h w -> f c h w")
        return self.decode(clean)[0], features, clean, stepped.previous[:, :, count:]


def whole_call_spec(networks: Networks, specs: Mapping[str, ProgramSpec]) -> ProgramSpec:
    """The whole call, for exports. Detail is not looked for: see ``flow_residual``."""
    denoise = specs["denoise"]
    assert isinstance(denoise.module, Denoise)
    inputs = {name: t.float() if name == "latents" else t for name, t in denoise.inputs.items()}
    module = WholeCall(networks, denoise.module, specs["decode"].module)
    return ProgramSpec(module, inputs, ("images", "features", "clean", "previous"), denoise.dynamic)


def exported(spec: ProgramSpec) -> torch.export.ExportedProgram:
    """The spec as one program of torch.export, for every count of images, references and steps."""
    limits = {"n": MAX_IMAGES, "r": REFERENCES[-1], "s": spec.max_steps}
    dims = {name: torch.export.Dim(name, min=1, max=limit) for name, limit in limits.items() if limit > 1}
    shapes: list[Any] = [
        {axis: unit * dims[count] for axis, (count, unit) in spec.dynamic.get(key, {}).items()} for key in spec.inputs
    ]
    parameters = inspect.signature(spec.module.forward).parameters.values()
    named = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    if named < len(parameters):  # the rest is one argument to the exporter
        shapes = [*shapes[:named], tuple(shapes[named:])]
    with torch.no_grad():
        return torch.export.export(
            spec.module.eval(), tuple(spec.inputs.values()), dynamic_shapes=tuple(shapes), strict=False
        )


class InBatches:
    """A per-image program for any number of images: so many at once, the last batch filled up where it must be."""

    def __init__(self, run: Program, size: int, *, exact: bool = False) -> None:
        """
        Args:
            exact: the program takes no fewer either.
        """
        self._run, self._size, self._exact = run, size, exact

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        parts = [self._batch(batch) for batch in zip(*(t.split(self._size) for t in tensors), strict=True)]
        return parts[0] if len(parts) == 1 else [torch.cat(found) for found in zip(*parts, strict=True)]

    def _batch(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        count = len(tensors[0])
        if not self._exact or count == self._size:
            return self._run(*tensors)
        filled = [torch.cat([t, t[-1:].expand(self._size - count, *t.shape[1:])]) for t in tensors]
        return [tensor[:count] for tensor in self._run(*filled)]


def without_gradients(name: str, run: Program) -> Program:
    """``run``, refusing tensors that want a gradient: programs give none, and silence would train nothing."""

    def checked(*tensors: Tensor) -> Sequence[Tensor]:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise RuntimeError(f"the {name} backend gives no gradients: train with the eager one")
        return run(*tensors)

    return checked


def program_backend(
    name: str, networks: Networks, programs: Mapping[str, Program], precision: torch.dtype
) -> Backend:
    """The backend that runs these programs, by the names of ``network_calls``, and torch for the others."""
    checked = {key: without_gradients(name, run) for key, run in programs.items()}
    return Backend(networks, checked, name=name, precision=precision)
