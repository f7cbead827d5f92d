"""ONNX: the networks as files that other programs read, and as onnxruntime or TensorRT computes them."""

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

from personalive.streaming.backends.graphs import Graph, exported
from personalive.streaming.backends.programs import Program

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "torch")
SUFFIX = ".onnx"
_OPSET = 20
_NUMPY = {torch.float32: np.float32, torch.float16: np.float16}


def missing() -> str | None:
    """What is not installed and how to get it, in words; None where all is."""
    absent = [package for package in PACKAGES if not find_spec(package)]
    return f"{' and '.join(absent)} missing: pip install 'personalive[onnx]'" if absent else None


def write(graphs: Mapping[str, Graph], folder: Path, told: Callable[[float], None]) -> None:
    """Export every graph to ``NAME.onnx``, weights beside it in ``NAME.onnx.data``; ``told`` gets the share done."""
    for number, (name, graph) in enumerate(graphs.items()):
        told(number / len(graphs))
        with _quietly():
            program = torch.onnx.export(
                exported(graph),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
                optimize=False,  # runtimes do it themselves, and it doubles the time
            )
        assert program is not None
        program.save(folder / f"{name}{SUFFIX}", external_data=True)
    told(1.0)


def read(
    graphs: Mapping[str, Graph], folder: Path, threads: int, providers: Sequence[Any] = ("CPUExecutionProvider",)
) -> dict[str, Program]:
    """The programs that ``write`` left there.

    Args:
        graphs: those that were written.
        threads: on the CPU.
        providers: of onnxruntime, the most wanted first, each a name or a pair with options.
    """
    import onnxruntime  # noqa: PLC0415 (optional)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave cores to others
    return {
        name: _Program(onnxruntime.InferenceSession(folder / f"{name}{SUFFIX}", options, list(providers)), graph)
        for name, graph in graphs.items()
    }


class _Program:
    """One session; sessions may be called from several threads."""

    def __init__(self, session: Any, graph: Graph) -> None:
        self._session = session
        self._inputs, self._outputs = list(graph.inputs), list(graph.outputs)
        self._wanted = {node.name for node in session.get_inputs()}  # those that the result depends on

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        named = {n: t.detach().contiguous() for n, t in zip(self._inputs, tensors, strict=True) if n in self._wanted}
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
    """The exporter tells its progress, its deprecations and the absence of torchvision to whoever listens."""
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
