"""Backends by name: what each needs, whether it can run here, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from personalive.config import BACKEND_ENV
from personalive.engine.backend import Backend
from personalive.errors import DeviceError, PersonaLiveError
from personalive.models.networks import Networks
from personalive.runtime import onnx, openvino
from personalive.runtime.cache import ProgramCache, program_key
from personalive.runtime.compile import compile_blocks, missing_for_compile
from personalive.runtime.programs import REFERENCES, ProgramSpec, program_backend, program_specs

AUTO = "auto"
EAGER, COMPILE, OPENVINO, ONNXRUNTIME, TENSORRT = "eager", "compile", "openvino", "onnxruntime", "tensorrt"
BACKENDS = (EAGER, COMPILE, OPENVINO, ONNXRUNTIME, TENSORRT)
_MAX_REASON_CHARS = 200  # of a library's error in ours
PrepareProgress = Callable[[str, float], None]  # (backend, share done)


def open_backend(
    name: str,
    networks: Networks,
    *,
    precision: torch.dtype,
    identity: str,
    decode_frames: int | None = None,
    threads: int | None = None,
    cache: ProgramCache | None = None,
    on_prepare: PrepareProgress | None = None,
) -> Backend:
    """The backend that runs these networks; programs that are not cached are made.

    Args:
        name: one of ``BACKENDS``.
        networks: in ``network_dtype(name, precision)``, on their device.
        precision: dtype of most arithmetic.
        identity: of the weights, see ``CheckpointFolder.identity``.
        decode_frames: images that are decoded at a time; None: a whole chunk.
        threads: of programs on a CPU; None: as many as torch has.
        cache: of programs; None is the user's own.
        on_prepare: called while programs are made.

    Raises:
        DeviceError: it cannot run here, or cannot take this model.
        OutputError: programs cannot be kept.
    """
    device = networks.denoising_unet.conv_in.weight.device
    if (reason := unavailable(name, device, precision)) is not None:
        raise DeviceError(f"backend {name}: {reason}")
    if device.type == "cuda" or (device.type == "cpu" and networks.denoising_unet.conv_in.weight.itemsize == 2):
        _use_channels_last(networks)
    if name == EAGER:
        return Backend(networks)
    on_progress = partial(on_prepare, name) if on_prepare else ignore_progress
    try:
        if name == COMPILE:
            return compile_blocks(networks, on_progress, decode_frames or networks.config.chunk_frames)
        opening = partial(_open_programs, threads=threads or torch.get_num_threads())
        return opening(name, networks, precision, identity, cache or ProgramCache(), on_progress)
    except (PersonaLiveError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # compilers and converters raise whatever they like
        reason = " ".join(str(error).split())[:_MAX_REASON_CHARS]
        raise DeviceError(
            f"backend {name}: this model could not be prepared for it ({reason}): use --backend eager"
        ) from error


def named_backend(name: str) -> str:
    """The backend's name; of "auto" the one that ``PERSONALIVE_BACKEND`` names, else still "auto"."""
    return os.environ.get(BACKEND_ENV) or AUTO if name == AUTO else name


def network_dtype(name: str, precision: torch.dtype) -> torch.dtype:
    """The dtype in which networks are loaded for this backend: OpenVINO narrows by itself."""
    return torch.float32 if name == OPENVINO else precision


def default_precision(name: str, device: torch.device, precision: torch.dtype) -> torch.dtype:
    """``precision``, or the nearest that the backend has, where the user chose none."""
    return torch.float32 if name == ONNXRUNTIME and device.type == "cpu" else precision


def unavailable(name: str, device: torch.device, precision: torch.dtype) -> str | None:
    """Reason why a backend cannot run here and what to do; None if it can."""
    if name not in BACKENDS:
        return f"not known: use auto, {', '.join(BACKENDS)}"
    if name == COMPILE:
        return missing_for_compile(device)
    if name == OPENVINO:
        if device.type != "cpu":
            return f"runs on a CPU, not on {device}: use --device cpu, or --backend auto"
        return None if find_spec("openvino") else "not installed: pip install openvino, or use --backend auto"
    if name in (ONNXRUNTIME, TENSORRT):
        return _onnx_unavailable(name, device, precision)
    return None


def _onnx_unavailable(name: str, device: torch.device, precision: torch.dtype) -> str | None:
    if (missing := onnx.missing()) is not None:
        return f"{missing}, or use --backend auto"
    import onnxruntime  # noqa: PLC0415 (slow, and optional)

    provider = _providers(name, device)[0][0]
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {provider}: install the build that has it, or use --backend auto"
    if precision == torch.bfloat16 or (precision == torch.float16 and device.type == "cpu"):
        return f"does not compute in {str(precision).removeprefix('torch.')} on {device.type}: use --dtype float32"
    return None


def _open_programs(
    name: str,
    networks: Networks,
    precision: torch.dtype,
    identity: str,
    cache: ProgramCache,
    on_progress: Callable[[float], None],
    *,
    threads: int,
) -> Backend:
    specs = program_specs(networks)
    weight = networks.denoising_unet.conv_in.weight
    if name == OPENVINO:
        key = program_key(name, *openvino.PACKAGES, model=identity)
        write, read = openvino.write, partial(openvino.read, specs, precision=precision, threads=threads)
    else:
        key = program_key("onnx", *onnx.PACKAGES, model=identity, dtype=weight.dtype, device=weight.device)
        write, read = onnx.write, partial(_read_onnx, name, specs, threads=threads, device=weight.device)
    programs = cache.read(key, make=lambda folder: write(specs, folder, on_progress), read=read)
    return program_backend(name, networks, programs, precision)


def _read_onnx(
    name: str, specs: dict[str, ProgramSpec], folder: Path, *, threads: int, device: torch.device
) -> dict[str, Any]:
    (folder / TENSORRT).mkdir(exist_ok=True)
    programs = onnx.read(specs, folder, threads, _providers(name, device, folder))
    if name == TENSORRT:  # engines are built when a shape is first met: better now than in the middle of a stream
        for key, spec in specs.items():
            for count in REFERENCES:  # images come in these numbers too
                programs[key](*spec.examples(count))
    return programs


def _providers(name: str, device: torch.device, folder: object = "") -> list[tuple[str, dict[str, Any]]]:
    if device.type == "cpu":
        return [("TensorrtExecutionProvider" if name == TENSORRT else "CPUExecutionProvider", {})]
    cuda: tuple[str, dict[str, Any]] = ("CUDAExecutionProvider", {"device_id": device.index or 0})
    if name == ONNXRUNTIME:
        return [cuda]
    engines = {
        "device_id": device.index or 0,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,  # keyed by graph, GPU and version; rebuilt by the provider when stale
        "trt_engine_cache_path": f"{folder}/{TENSORRT}",
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": f"{folder}/{TENSORRT}",
    }
    return [("TensorrtExecutionProvider", engines), cuda]


def _use_channels_last(networks: Networks) -> None:
    """Lay convolutions' weights out as they are read in half precision; norms and attention keep that layout.

    In float32 on a CPU it rounds otherwise, and frames there are those that were recorded.
    """
    modules: list[Any] = [*networks.modules().values(), networks.decoder]
    for module in modules:
        module.to(memory_format=torch.channels_last)


def ignore_progress(_share: float) -> None:
    """Progress that nobody asked for."""
