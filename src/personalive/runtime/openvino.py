"""OpenVINO: the networks as Intel's runtime computes them on a CPU, in bfloat16 where the processor has AMX."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor

from personalive.engine.backend import Program
from personalive.runtime.programs import MAX_IMAGES, InBatches, ProgramSpec

PACKAGES = ("openvino", "torch")  # whose versions decide the files
_ENCODERS = ("encode", "extract", "motion_tokens")  # the other programs gain nothing by a fixed shape
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def write(specs: Mapping[str, ProgramSpec], folder: Path, on_progress: Callable[[float], None]) -> None:
    """Convert every spec to ``NAME.xml`` and ``NAME.bin``; ``on_progress`` gets the share done."""
    openvino = _openvino()
    for number, (name, spec) in enumerate(specs.items()):
        on_progress(number / len(specs))
        model = _traced(spec)
        if len(model.inputs) != len(spec.inputs):
            raise RuntimeError(f"{name}: converted with {len(model.inputs)} of {len(spec.inputs)} inputs")
        openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)
    on_progress(1.0)


def read(
    specs: Mapping[str, ProgramSpec], folder: Path, *, precision: torch.dtype, threads: int
) -> dict[str, Program]:
    """Programs that ``write`` left there; encoders for a chunk of images exactly, a quarter faster so.

    The denoiser is compiled for each number of steps when it first meets it: for whichever comes, it would take 1.4
    times as long.
    """
    core = _core()
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_HYPER_THREADING": True,  # or it would count cores and take half of the threads it may
    }

    def compiled(name: str, spec: ProgramSpec, *, exact: bool = False, steps: int | None = None) -> _Program:
        model = core.read_model(folder / f"{name}.xml")
        if exact:
            shapes = [list(tensor.shape) for tensor in spec.inputs.values()]
            model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        if steps is not None:
            model.reshape(dict(zip(model.inputs, (spec.shape(key, steps) for key in spec.inputs), strict=True)))
        return _Program(core.compile_model(model, "CPU", settings))

    programs: dict[str, Program] = {}
    for name, spec in specs.items():
        if spec.step_axes:
            programs[name] = _BySteps(spec, partial(compiled, name, spec))
            continue
        exact = name in _ENCODERS
        chunk = len(next(iter(spec.inputs.values()))) if exact else MAX_IMAGES
        program = compiled(name, spec, exact=exact)
        programs[name] = InBatches(program, chunk, exact=exact) if spec.per_image else program
    return programs


def _traced(spec: ProgramSpec) -> Any:
    """Model of a spec for every count of images, references and steps, in a quarter of the time of torch.export."""
    examples = tuple(spec.inputs.values())
    shapes = [
        [-1 if axis in spec.dynamic.get(name, {}) else length for axis, length in enumerate(tensor.shape)]
        for name, tensor in spec.inputs.items()
    ]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of sizes compared while tracing, and of tracing itself
        traced = torch.jit.freeze(torch.jit.trace(spec.module.eval(), examples, check_trace=False))
        return _openvino().convert_model(traced, example_input=examples, input=shapes)


def _openvino() -> Any:
    """The library without its telemetry, which would report its import and every conversion to Google Analytics."""
    cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)  # as if it were not installed
    import openvino  # noqa: PLC0415 (slow, and optional)

    return openvino


@cache
def _core() -> Any:
    """The one core of this process, which lives as long as it.

    On processors with AMX a core gives the thread that makes it another stack for signals, and unmaps that stack with
    itself; where another thread drops the last reference, the next signal (Ctrl-C) is handled on memory that is gone.
    """
    return _openvino().Core()


class _BySteps:
    """One program for each number of denoising steps, made when it is first called for."""

    def __init__(self, spec: ProgramSpec, make: Callable[..., Program]) -> None:
        name, self._axis, self._unit = spec.step_axes[0]
        self._input = list(spec.inputs).index(name)
        self._make, self._lock = make, Lock()
        self._made: dict[int, Program] = {}

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        steps = tensors[self._input].shape[self._axis] // self._unit
        with self._lock:
            if steps not in self._made:
                self._made[steps] = self._make(steps=steps)
        return self._made[steps](*tensors)


class _Program:
    """One compiled model. Its one request is not made for two threads at once."""

    def __init__(self, compiled: Any) -> None:
        self._request, self._lock = compiled.create_infer_request(), Lock()

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(array) for array in found.values()]
