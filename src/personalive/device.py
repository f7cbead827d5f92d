"""Transfers between host and device, and the names of devices."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

_CPU_INFO = Path("/proc/cpuinfo")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device.

    CUDA copies from pinned memory when the copy's turn comes; from other memory the host waits until all that was
    asked before is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@lru_cache(maxsize=256)
def constant(values: tuple, device: torch.device) -> Tensor:
    """Numbers, nested as they come, as a read-only tensor on the device, copied once."""
    return torch.tensor(values, device=device)


class HostCopy:
    """Copy of a tensor in host memory that may still be under way, behind the device's work for it."""

    def __init__(self, tensor: Tensor) -> None:
        """Begin to copy; on CUDA without waiting."""
        tensor = tensor.detach()
        self._ready: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._tensor = tensor.cpu()
            return
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._tensor.copy_(tensor, non_blocking=True)
        self._ready = torch.cuda.Event()
        self._ready.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The tensor on the CPU, once it is there."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._tensor


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Hold the module's tensors on ``device`` inside the block; afterwards they are where they were.

    They are copied in and dropped, never copied back: for networks that only compute. Nothing happens to those that
    are there already.
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


def device_name(device: torch.device) -> str:
    """Model of the device with its index, and of a CPU its threads: what a measurement holds for."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {device}"
    threads = f"{os.cpu_count()} threads"
    if device.type == "cpu" and _CPU_INFO.is_file():
        names = [line for line in _CPU_INFO.read_text().splitlines() if line.startswith("model name")]
        return f"{names[0] if names else platform.processor()}, {threads}"
    return f"{device.type} {platform.machine()} {platform.processor()}, {threads}"


def cpu_only_build_hint() -> str | None:
    """One line for an NVIDIA machine whose torch was built without CUDA, as PyPI's for Windows is; else None."""
    if torch.version.cuda is not None or torch.version.hip is not None or not shutil.which("nvidia-smi"):
        return None
    return (
        "this machine has an NVIDIA driver, but its PyTorch is the CPU build: install the CUDA build, "
        "`pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130`"
    )
