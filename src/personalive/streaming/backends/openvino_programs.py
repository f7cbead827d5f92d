"""OpenVINO: the networks as Intel's runtime computes them on a CPU, in bfloat16 where the processor has it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor

from personalive.streaming.backends.graphs import Graph, exported
from personalive.streaming.backends.programs import InChunks, Program

PACKAGES = ("openvino", "torch")  # whose versions decide the files
_ENCODERS = ("encode", "extract", "motion_tokens")  # the other programs gain nothing by a fixed shape
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def write(graphs: Mapping[str, Graph], folder: Path, told: Callable[[float], None]) -> None:
    """Convert every graph to ``NAME.xml`` and ``NAME.bin``; ``told`` gets the share that is done."""
    openvino = _openvino()
    for number, (name, graph) in enumerate(graphs.items()):
        told(number / len(graphs))
        with warnings.catch_warnings():  # torch copies exported programs in a way it warns of itself
            warnings.simplefilter("ignore")
            model = openvino.convert_model(exported(graph))
        if len(model.inputs) != len(graph.inputs):
            raise RuntimeError(f"{name}: converted with {len(model.inputs)} of {len(graph.inputs)} inputs")
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
    told(1.0)


def read(
    graphs: Mapping[str, Graph], folder: Path, precision: torch.dtype, threads: int, chunk: int
) -> dict[str, Program]:
    """The programs that ``write`` left there; encoders for a chunk of pictures exactly, a quarter faster so."""
    openvino = _openvino()
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_HYPER_THREADING": True,  # or it would count cores and take half of the threads it may
    }
    programs: dict[str, Program] = {}
    for name, graph in graphs.items():
        model = core.read_model(folder / f"{name}.xml")
        if name in _ENCODERS:
            model.reshape(
                {node: graph.shape(key, chunk) for node, key in zip(model.inputs, graph.inputs, strict=True)}
            )
        program = _Program(core.compile_model(model, "CPU", settings))
        programs[name] = InChunks(program, chunk) if name in _ENCODERS else program
    return programs


def _openvino() -> Any:
    """The library without its telemetry, which would report its import and every conversion to Google Analytics."""
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)  # as if it were not installed
    import openvino  # noqa: PLC0415 (slow, and optional)

    return openvino


class _Program:
    """One compiled model. Its one request is not made for two threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._request, self._lock = compiled.create_infer_request(), Lock()

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(array) for array in found.values()]
