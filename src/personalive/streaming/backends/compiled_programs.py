"""torch.compile: the networks fused by torch's own compiler, with CUDA graphs on NVIDIA devices.

Nothing is compiled again while a stream runs. Pictures always come by chunks, the last one filled up. On CUDA the
denoiser has a graph for every number of reference pictures, four at most; elsewhere one program takes all numbers,
which is compiled in a quarter of the time.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from personalive.streaming.backends.graphs import REFERENCES, Graph, exported, listed
from personalive.streaming.backends.programs import Program

COMPILER_CACHE_ENV = "TORCHINDUCTOR_CACHE_DIR"  # where torch's compiler keeps what it made


def compile_graphs(
    graphs: Mapping[str, Graph], chunk: int, told: Callable[[float], None], compiler: str = "inductor"
) -> dict[str, Program]:
    """Compile every graph for every count that a stream meets; ``told`` gets the share that is done.

    Args:
        chunk: frames of a chunk.
        compiler: what torch.compile hands its graphs to.
    """
    programs: dict[str, Program] = {}
    with warnings.catch_warnings():  # the compiler's own modules warn of torch's deprecations
        warnings.simplefilter("ignore")
        for number, (name, graph) in enumerate(graphs.items()):
            told(number / len(graphs))
            run = _Compiled(graph, compiler)
            programs[name] = _InChunks(run, chunk) if graph.counts == {"n"} else run
            for count in REFERENCES if graph.counts == {"r"} else (chunk,):
                run(*graph.examples(count))
    told(1.0)
    return programs


def keep_in(folder: Path) -> None:
    """Let the compiler keep what it makes there, unless the user has named a place: its own is gone by tomorrow."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # noqa: PLC0415 (slow)

    default = default_cache_dir()  # torch itself names it there
    if os.environ.get(COMPILER_CACHE_ENV, default) == default:
        os.environ[COMPILER_CACHE_ENV] = str(folder)


class _Compiled:
    """One graph, compiled when it first meets a shape."""

    def __init__(self, graph: Graph, compiler: str) -> None:
        cuda = next(iter(graph.inputs.values())).is_cuda
        self._mark = torch.compiler.cudagraph_mark_step_begin if cuda else None
        axes = [graph.dynamic.get(name, {}) for name in graph.inputs]
        self._varying = [None if cuda else next((a for a, (n, _) in of.items() if n == "r"), None) for of in axes]
        self._run = torch.compile(
            exported(graph).module(check_guards=False),
            dynamic=False,
            backend=compiler,
            mode="reduce-overhead" if cuda else None,
        )

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        tensors = tuple(tensor.contiguous() for tensor in tensors)  # another layout would be another program
        for tensor, axis in zip(tensors, self._varying, strict=True):
            if axis is not None:
                torch._dynamo.mark_dynamic(tensor, axis)
        if self._mark is None:
            return listed(self._run(*tensors))
        self._mark()  # what the last call gave may be written over, and this one's by the next: hence the copies
        return [tensor.clone() for tensor in listed(self._run(*tensors))]


class _InChunks:
    """Any number of pictures by a program for a chunk of them."""

    def __init__(self, run: Program, chunk: int) -> None:
        self._run, self._chunk = run, chunk

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        parts = []
        for start in range(0, len(tensors[0]), self._chunk):
            part = [tensor[start : start + self._chunk] for tensor in tensors]
            missing = self._chunk - len(part[0])
            filled = [torch.cat([t, t[-1:].expand(missing, *t.shape[1:])]) if missing else t for t in part]
            parts.append([tensor[: self._chunk - missing] for tensor in self._run(*filled)])
        return parts[0] if len(parts) == 1 else [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
