"""What a measurement or a compiled program holds for: the processor it was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

_CPU_NAMES = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """The model of the device, and of a CPU its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and _CPU_NAMES.is_file():
        names = [line for line in _CPU_NAMES.read_text().splitlines() if line.startswith("model name")]
        return f"{names[0] if names else platform.processor()}, {os.cpu_count()} threads"
    return f"{device.type} {platform.machine()} {platform.processor()}, {os.cpu_count()} threads"
