"""Device memory: which preset, what rests outside the device, and what is said where there is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from personalive.config import PRESETS, RELEASED_VALUES, TINY, MemoryPreset, ModelConfig
from personalive.errors import DeviceError

if TYPE_CHECKING:
    from personalive.streaming.engine import Engine

AUTO = "auto"
_HALF_BYTES = 2  # of a value in half precision
_CPU = torch.device("cpu")
# How libraries tell that memory ran out where torch has no error type of its own for it: the CPU, MPS, cuBLAS, cuDNN.
_TOLD = ("out of memory", "DefaultCPUAllocator", "_ALLOC_FAILED")


def choose_preset(name: str, device: torch.device, weight_bytes: Callable[[], int]) -> MemoryPreset:
    """The named preset; for ``"auto"`` the largest that the device has room for on CUDA, and none elsewhere.

    It goes by all of the device's memory, not by what is free now: the same machine makes the same pictures.

    Args:
        name: GB, or "auto".
        weight_bytes: what all networks take in the number format wanted, asked only where it matters. Presets are
            made for the released weights in half precision; a model of half the size finds twice the room.

    Raises:
        DeviceError: a name that is not known.
    """
    if name != AUTO:
        if name not in PRESETS:
            raise DeviceError(f"vram {name!r} is not known: use auto, {', '.join(PRESETS)}")
        return PRESETS[name]
    by_size = sorted(PRESETS.values(), key=lambda preset: -preset.min_device_bytes)
    if device.type != "cuda":
        return by_size[0]
    room = torch.cuda.get_device_properties(device).total_memory * RELEASED_VALUES * _HALF_BYTES / weight_bytes()
    return next(preset for preset in by_size if room >= preset.min_device_bytes)


# --- what rests outside the device ----------------------------------------------------------------------------------


def resting(config: ModelConfig, preset: MemoryPreset) -> tuple[str, ...]:
    """What waits on the CPU while a stream runs: networks by name, or parts of them as ``vae.encoder``."""
    if not preset.encoders_rest:
        return ()
    return ("clip",) if config.entry == "moved" else ("clip", "vae.encoder")  # "moved" encodes in each call


def lay_to_rest(config: ModelConfig, preset: MemoryPreset, part: str, module: nn.Module) -> None:
    """Move to the CPU what waits there of the network named ``part``."""
    for name in resting(config, preset):
        owner, _, path = name.partition(".")
        if owner == part:
            nn.Module.to(module.get_submodule(path), device=_CPU)


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the module's tensors are on ``device``; afterwards where they were. Nothing happens to those that are
    there already.

    They are copied in and dropped, never copied back: for networks that only compute.
    """
    away = [
        (owner, name, tensor)
        for owner in module.modules()
        for name, tensor in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False))
        if tensor.device != device
    ]
    try:
        for owner, name, tensor in away:
            copy = tensor.detach().to(device)
            setattr(owner, name, nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy)
        yield
    finally:
        for owner, name, tensor in away:
            setattr(owner, name, tensor)


# --- not enough -----------------------------------------------------------------------------------------------------


def memory_errors(engine: Engine) -> AbstractContextManager[None]:
    """What runs out of memory inside, while ``engine`` works, becomes one line with what would fit.

    Raises:
        DeviceError: instead of torch's, numpy's or Python's own error.
    """
    return shortage(engine.device, ways_out(engine.memory, engine.device, engine.dtype, engine.name))


@contextmanager
def shortage(device: torch.device, ways: str) -> Iterator[None]:
    """``memory_errors`` where there is no engine.

    Args:
        device: whose memory; a shortage of main memory is told as such.
        ways: what to use instead.

    Raises:
        DeviceError: instead of torch's, numpy's or Python's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError):
            line = f"main memory: not enough memory for this model: close other programs, or use {ways}"
        elif isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _TOLD):
            line = f"{device}: not enough memory for this model: use {ways}"
        else:
            raise
        told = DeviceError(line)
        for note in getattr(error, "__notes__", []):  # what was kept of a film
            told.add_note(note)
        raise told from error


def ways_out(preset: MemoryPreset, device: torch.device, dtype: torch.dtype, name: str) -> str:
    """What needs less memory than a stream of the model ``name`` in this preset and format: options, best first."""
    on_cpu, wide = device.type == "cpu", dtype == torch.float32
    smaller = [one for one in PRESETS.values() if one.min_device_bytes < preset.min_device_bytes]
    ways = [f"--vram {max(smaller, key=lambda one: one.min_device_bytes).name}"] if smaller else []
    if wide:
        ways.append("--dtype bfloat16" if on_cpu else "--dtype float16")
    if not smaller:
        ways += [] if on_cpu else ["--device cpu"]
        ways += [] if name == TINY else ["--weights tiny"]
    return " or ".join(ways) or "a machine with more memory"
