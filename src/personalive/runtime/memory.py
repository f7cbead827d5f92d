"""Device memory: presets, offloading, and one line where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from personalive.config import PRESETS, RELEASED_VALUES, TINY, MemoryPreset, ModelConfig
from personalive.errors import DeviceError

if TYPE_CHECKING:
    from personalive.engine.base import BaseEngine

AUTO = "auto"
_HALF_BYTES = 2  # of a value in half precision
_CPU = torch.device("cpu")
# Signs of it in messages where torch has no error type for it: the CPU, MPS, cuBLAS, cuDNN.
_OOM_SIGNS = ("out of memory", "DefaultCPUAllocator", "_ALLOC_FAILED")


def choose_preset(name: str, device: torch.device, weight_bytes: Callable[[], int]) -> MemoryPreset:
    """The named preset; for ``"auto"`` the largest that the device has room for on CUDA, and none elsewhere.

    It goes by all of the device's memory, not by what is free now: the same machine makes the same images.

    Args:
        name: GB, or "auto".
        weight_bytes: of all networks in the dtype wanted, called only where it matters. Presets are
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


# --- offloading -----------------------------------------------------------------------------------------------------


def offloaded(config: ModelConfig, preset: MemoryPreset) -> tuple[str, ...]:
    """Networks, or parts of them as ``vae.encoder``, that wait on the CPU while a stream runs."""
    if not preset.offload_encoders:
        return ()
    return ("clip",) if config.entry == "moved" else ("clip", "vae.encoder")  # "moved" encodes in each call


def offload(config: ModelConfig, preset: MemoryPreset, part: str, module: nn.Module) -> None:
    """Move to the CPU what waits there of the network named ``part``."""
    for name in offloaded(config, preset):
        owner, _, path = name.partition(".")
        if owner == part:
            nn.Module.to(module.get_submodule(path), device=_CPU)


# --- out of memory --------------------------------------------------------------------------------------------------


def engine_oom_errors(engine: BaseEngine) -> AbstractContextManager[None]:
    """``oom_errors`` while ``engine`` works, with what would fit."""
    return oom_errors(engine.device, memory_hints(engine.memory, engine.device, engine.dtype, engine.name))


@contextmanager
def oom_errors(device: torch.device, hints: str) -> Iterator[None]:
    """Turn running out of memory inside the block into one line.

    Args:
        device: whose memory; a shortage of main memory is named as such.
        hints: what to use instead.

    Raises:
        DeviceError: instead of torch's, numpy's or Python's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError):
            line = f"main memory: not enough memory for this model: close other programs, or use {hints}"
        elif isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _OOM_SIGNS):
            line = f"{device}: not enough memory for this model: use {hints}"
        else:
            raise
        known = DeviceError(line)
        for note in getattr(error, "__notes__", []):  # what was kept of a video
            known.add_note(note)
        raise known from error


def memory_hints(preset: MemoryPreset, device: torch.device, dtype: torch.dtype, name: str) -> str:
    """Options that need less memory than a stream of the model ``name`` in this preset and dtype, best first."""
    on_cpu, wide = device.type == "cpu", dtype == torch.float32
    smaller = [one for one in PRESETS.values() if one.min_device_bytes < preset.min_device_bytes]
    hints = [f"--vram {max(smaller, key=lambda one: one.min_device_bytes).name}"] if smaller else []
    if wide:
        hints.append("--dtype bfloat16" if on_cpu else "--dtype float16")
    if not smaller:
        hints += [] if on_cpu else ["--device cpu"]
        hints += [] if name == TINY else ["--weights tiny"]
    return " or ".join(hints) or "a machine with more memory"
