"""ONNX files of the networks, and programs of them by onnxruntime. TensorRT, its provider, was never run here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalive.engine.backend import Program
from personalive.runtime.programs import MAX_IMAGES, InBatches, ProgramSpec, exported

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "torch")
SUFFIX = ".onnx"
_OPSET = 20
_NUMPY = {torch.float32: np.float32, torch.float16: np.float16}


def missing() -> str | None:
    """One clause that names the packages that are not installed and how to get them; None where all are."""
    absent = [package for package in PACKAGES if not find_spec(package)]
    return f"{' and '.join(absent)} missing: pip install 'personalive[onnx]'" if absent else None


def write(specs: Mapping[str, ProgramSpec], folder: Path, on_progress: Callable[[float], None]) -> None:
    """Export every spec to ``NAME.onnx``, weights beside it in ``NAME.onnx.data``; the share done is reported."""
    for number, (name, spec) in enumerate(specs.items()):
        on_progress(number / len(specs))
        with _quietly():
            program = torch.onnx.export(
                exported(spec),
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
                optimize=False,  # runtimes do it themselves, and it doubles the time
            )
        assert program is not None
        program.save(folder / f"{name}{SUFFIX}", external_data=True)
    on_progress(1.0)


def read(
    specs: Mapping[str, ProgramSpec],
    folder: Path,
    threads: int,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
) -> dict[str, Program]:
    """Programs that ``write`` left there.

    Args:
        specs: those that were written.
        threads: on the CPU.
        providers: of onnxruntime, the most wanted first, each a name or a pair with options.
    """
    import onnxruntime  # noqa: PLC0415 (optional)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave cores to others
    programs: dict[str, Program] = {}
    for name, spec in specs.items():
        session = onnxruntime.InferenceSession(folder / f"{name}{SUFFIX}", options, list(providers))
        program = _Program(session, spec)
        programs[name] = InBatches(program, MAX_IMAGES) if spec.per_image else program
    return programs


class _Program:
    """One session; sessions may be called from several threads."""

    def __init__(self, session: Any, spec: ProgramSpec) -> None:
        self._session = session
        self._inputs, self._outputs = list(spec.inputs), list(spec.outputs)
        self._used = {node.name for node in session.get_inputs()}  # those that the result depends on

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        named = {n: t.detach().contiguous() for n, t in zip(self._inputs, tensors, strict=True) if n in self._used}
        if tensors[0].is_cuda:
            return self._on_device(named)
        found = self._session.run(self._outputs, {name: tensor.numpy() for name, tensor in named.items()})
        return [torch.from_numpy(array) for array in found]

    def _on_device(self, named: Mapping[str, Tensor]) -> list[Tensor]:
        """Without a way through host memory."""
        device = next(iter(named.values())).device
        binding = self._session.io_binding()
        for name, tensor in named.items():
            shape = tuple(tensor.shape)
            binding.bind_input(name, "cuda", device.index or 0, _NUMPY[tensor.dtype], shape, tensor.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, "cuda", device.index or 0)
        torch.cuda.current_stream(device).synchronize()  # its stream is not ours
        self._session.run_with_iobinding(binding)
        return [torch.from_dlpack(value) for value in binding.get_outputs()]


@contextmanager
def _quietly():
    """Silence the exporter's progress, its deprecations and its remark on the absence of torchvision."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
