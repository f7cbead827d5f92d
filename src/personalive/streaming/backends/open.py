"""From a backend's name to a backend: what each needs, and whether it can run here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from personalive.checkpoints.programs import ProgramStore, program_key
from personalive.errors import DeviceError, PersonaLiveError
from personalive.models.bundle import Networks
from personalive.streaming.backends import compiled_programs, onnx_programs, openvino_programs
from personalive.streaming.backends.base import Backend
from personalive.streaming.backends.beside import Beside
from personalive.streaming.backends.graphs import REFERENCES, Graph, graphs
from personalive.streaming.backends.machine import device_name
from personalive.streaming.backends.programs import Program, ProgramBackend

EAGER, COMPILE, OPENVINO, ONNXRUNTIME, TENSORRT = "eager", "compile", "openvino", "onnxruntime", "tensorrt"
BACKENDS = (EAGER, COMPILE, OPENVINO, ONNXRUNTIME, TENSORRT)
_SHOWN = 200  # characters of a foreign error
Preparing = Callable[[str, float], None]  # (backend, share that is done)


def open_backend(
    name: str,
    networks: Networks,
    *,
    precision: torch.dtype,
    identity: str,
    store: ProgramStore | None = None,
    preparing: Preparing | None = None,
    decode_beside: bool = False,
) -> Backend:
    """Make the backend that runs these networks, preparing what is not kept from an earlier time.

    Args:
        name: one of ``BACKENDS``.
        networks: in ``network_dtype(name, precision)``, on their device.
        precision: what most arithmetic is to be done in.
        identity: of the weights, see ``CheckpointFolder.identity``.
        store: where programs are kept; None is the user's own.
        preparing: called while programs are made.
        decode_beside: on CUDA, make pictures of finished frames while the next call runs; takes memory for both.

    Raises:
        DeviceError: it cannot run here, or cannot take this model.
        OutputError: programs cannot be kept.
    """
    device = networks.denoising_unet.conv_in.weight.device
    if (reason := why_not(name, device, precision)) is not None:
        raise DeviceError(f"backend {name}: {reason}")
    if device.type == "cuda":
        _channels_last(networks)
    apart = decode_beside and name in (EAGER, COMPILE)  # the others wait for streams of their own
    beside = Beside.on(device) if apart else Beside()
    plain = Backend(networks, beside=beside)
    if name == EAGER:
        return plain
    told = partial(preparing or _silent, name)
    try:
        programs = _programs(name, plain, precision, identity, store or ProgramStore(), told)
    except (PersonaLiveError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # compilers and converters raise whatever they like
        reason = " ".join(str(error).split())[:_SHOWN]
        raise DeviceError(
            f"backend {name}: this model could not be prepared for it ({reason}): use --backend eager"
        ) from error
    return ProgramBackend(networks, name, programs, precision, beside)


def network_dtype(name: str, precision: torch.dtype) -> torch.dtype:
    """The number format in which networks are loaded for this backend: OpenVINO narrows by itself."""
    return torch.float32 if name == OPENVINO else precision


def fitting_precision(name: str, device: torch.device, precision: torch.dtype) -> torch.dtype:
    """``precision``, or the nearest that the backend has, where nobody asked for one."""
    return torch.float32 if name == ONNXRUNTIME and device.type == "cpu" else precision


def why_not(name: str, device: torch.device, precision: torch.dtype) -> str | None:
    """Why a backend cannot run here and what to do, in words; None if it can."""
    if name not in BACKENDS:
        return f"not known: use auto, {', '.join(BACKENDS)}"
    if name == COMPILE:
        return _why_not_compile(device)
    if name == OPENVINO:
        if device.type != "cpu":
            return f"runs on a CPU, not on {device}: use --device cpu, or --backend auto"
        return None if find_spec("openvino") else "not installed: pip install openvino, or use --backend auto"
    if name in (ONNXRUNTIME, TENSORRT):
        return _why_not_onnx(name, device, precision)
    return None


def _why_not_compile(device: torch.device) -> str | None:
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++") or shutil.which("cl")):
        return "torch's compiler needs a C++ compiler: install g++, or use --backend auto"
    if device.type == "cuda" and not find_spec("triton"):
        return "torch's compiler needs Triton: pip install triton, or use --backend eager"
    return None


def _why_not_onnx(name: str, device: torch.device, precision: torch.dtype) -> str | None:
    if (missing := onnx_programs.missing()) is not None:
        return f"{missing}, or use --backend auto"
    import onnxruntime  # noqa: PLC0415 (slow, and optional)

    wanted = _providers(name, device)[0][0]
    if wanted not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {wanted}: install the build that has it, or use --backend auto"
    if precision == torch.bfloat16 or (precision == torch.float16 and device.type == "cpu"):
        return f"does not compute in {str(precision).removeprefix('torch.')} on {device.type}: use --dtype float32"
    return None


def _programs(
    name: str,
    plain: Backend,
    precision: torch.dtype,
    identity: str,
    store: ProgramStore,
    told: Callable[[float], None],
) -> dict[str, Program]:
    found = graphs(plain)
    threads = torch.get_num_threads()
    if name == COMPILE:
        facts = {"structure": compiled_programs.structure(found, plain.networks), "device": device_name(plain.device)}
        return store.read(
            program_key(name, *compiled_programs.PACKAGES, **facts, threads=threads),
            make=lambda folder: compiled_programs.write(found, folder, told),
            read=lambda folder: compiled_programs.read(found, folder, decode_beside=plain.beside.stream is not None),
        )
    if name == OPENVINO:
        return store.read(
            program_key(name, *openvino_programs.PACKAGES, model=identity),
            make=lambda folder: openvino_programs.write(found, folder, told),
            read=lambda folder: openvino_programs.read(found, folder, precision, threads, plain.leaving),
        )
    return store.read(
        onnx_key(identity, plain.dtype, plain.device),
        make=lambda folder: onnx_programs.write(found, folder, told),
        read=lambda folder: _onnx(name, found, folder, threads, plain.device),
    )


def _onnx(
    name: str, found: Mapping[str, Graph], folder: Path, threads: int, device: torch.device
) -> dict[str, Program]:
    (folder / TENSORRT).mkdir(exist_ok=True)
    programs = onnx_programs.read(found, folder, threads, _providers(name, device, folder))
    if name == TENSORRT:  # engines are built when a shape is first met: better now than in the middle of a stream
        for graph, program in zip(found.values(), programs.values(), strict=True):
            for count in REFERENCES:  # pictures come in these numbers too
                program(*graph.examples(count))
    return programs


def onnx_key(identity: str, dtype: torch.dtype, device: torch.device) -> str:
    """Where the ONNX files of networks are kept."""
    return program_key("onnx", *onnx_programs.PACKAGES, model=identity, dtype=dtype, device=device.type)


def has_engines(identity: str, dtype: torch.dtype, device: torch.device, store: ProgramStore) -> bool:
    """Whether ``personalive export tensorrt`` has built something for these networks."""
    if onnx_programs.missing() is not None:
        return False
    built = store.root / onnx_key(identity, dtype, device) / TENSORRT
    return built.is_dir() and any(built.iterdir())


def _providers(name: str, device: torch.device, folder: object = "") -> list[tuple[str, dict[str, Any]]]:
    if device.type == "cpu":
        wanted = "TensorrtExecutionProvider" if name == TENSORRT else "CPUExecutionProvider"
        return [(wanted, {})]
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


def _channels_last(networks: Networks) -> None:
    """Lay convolutions' weights out as tensor cores read them; else they would be laid out anew in each call."""
    modules: list[Any] = [*networks.modules().values(), networks.decoder]
    for module in modules:
        module.to(memory_format=torch.channels_last)


def _silent(_name: str, _share: float) -> None:
    """Nobody wants to know."""
