"""CUDA graphs: a program's kernels recorded once and launched as one, which spares the host thousands of calls."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from personalive.streaming.backends.graphs import Graph
from personalive.streaming.backends.programs import Program


class Recorded:
    """A program recorded for some counts; with any other it is run plainly.

    All counts share one set of inputs, the largest count's, and one pool of memory: only one of them runs at a time.
    """

    def __init__(self, run: Program, graph: Graph, counts: Sequence[int]) -> None:
        """Record at once.

        Args:
            run: launches kernels on the current stream, and waits for none.
            graph: what ``run`` computes.
            counts: of pictures or of references.
        """
        self._run, self._lock = run, Lock()
        self._inputs = graph.examples(max(counts))
        self._recorded: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]] = {}
        pool = torch.cuda.graph_pool_handle()
        for count in sorted(counts, reverse=True):  # the largest first: the others fit into what it took
            inputs = [
                whole[tuple(slice(side) for side in graph.shape(name, count))]
                for name, whole in zip(graph.inputs, self._inputs, strict=True)
            ]
            recording, outputs = _record(run, inputs, pool)
            self._recorded[_shapes(inputs)] = recording, inputs, outputs

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        if (found := self._recorded.get(_shapes(tensors))) is None:
            return self._run(*tensors)
        recording, inputs, outputs = found
        with self._lock:
            for own, given in zip(inputs, tensors, strict=True):
                own.copy_(given)
            recording.replay()
            return [tensor.clone() for tensor in outputs]  # the next replay writes over them


def _shapes(tensors: Sequence[Tensor]) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape for tensor in tensors)


@torch.no_grad()
def _record(run: Program, inputs: list[Tensor], pool: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    aside = torch.cuda.Stream(inputs[0].device)
    aside.wait_stream(torch.cuda.current_stream(inputs[0].device))
    with torch.cuda.stream(aside):  # libraries set themselves up in their first calls, which cannot be recorded
        for _ in range(2):
            run(*inputs)
    torch.cuda.current_stream(inputs[0].device).wait_stream(aside)
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording, pool=pool):
        outputs = list(run(*inputs))
    return recording, outputs
