"""The machine: device, versions, memory, and its speed of matrix products."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from timing.stages import settle

PACKAGES = ("numpy", "diffusers", "transformers", "triton", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt")
CUDA_SIDE, CPU_SIDE = 8192, 2048  # of the multiplied matrices
PRODUCTS, FEWEST_PRODUCTS = 100, 4
SLOW_S = 1.0  # after this much, no further product
WARMING = 0.25  # share of the products that is left out: clocks rise first


def environment(device: torch.device) -> dict[str, Any]:
    """Device, versions and settings."""
    found: dict[str, Any] = {
        "device": str(device),
        "device_name": device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "packages": dict(_versions()),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    if device.type == "cuda":
        found["device_memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    return found


def device_name(device: torch.device) -> str:
    """Name by its maker, where the system has it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processors = Path("/proc/cpuinfo")
    if device.type == "cpu" and processors.is_file():
        for line in processors.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, the median of several."""
    side = CUDA_SIDE if device.type == "cuda" else CPU_SIDE
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < PRODUCTS and (len(times) < FEWEST_PRODUCTS or time.perf_counter() - begun < SLOW_S):
        settle(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        settle(device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / median(times[round(WARMING * len(times)) :])


class Memory:
    """The most memory taken since it was made: on CUDA above what was taken then, elsewhere by the whole process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_cuda = device.type == "cuda"
        self.before = torch.cuda.memory_allocated(device) if on_cuda else 0
        self.reserved_before = torch.cuda.memory_reserved(device) if on_cuda else 0
        self.reset()

    def reset(self) -> None:
        """Forget the peak so far, where the system can."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return  # then the peak is that of the whole run

    def peak_bytes(self) -> int | None:
        """Bytes, or None where nobody knows."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        status = Path("/proc/self/status")
        if status.is_file():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM"):
                    return 1024 * int(line.split()[1])
        return _most_resident_bytes()

    def reserved_bytes(self) -> int | None:
        """On CUDA, what torch took from the device at most: more than ``peak_bytes`` by what it keeps for later."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_reserved(self.device) - self.reserved_before


def _most_resident_bytes() -> int | None:
    try:
        import resource  # noqa: PLC0415 (not on Windows)
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
