"""CUDA graphs: a program's kernels recorded once and launched as one, which spares the host thousands of calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from personalive.streaming.backends.graphs import Graph
from personalive.streaming.backends.programs import Program

_MOST = 4  # recordings of one program
Shapes = tuple[torch.Size, ...]


class Recorder:
    """One pool of memory for recordings of which only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._lock, self._device = Lock(), device
        self._pool = torch.cuda.graph_pool_handle()
        self._done = torch.cuda.Event()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, the device is at work for nobody else's turn, on whichever stream that was."""
        with self._lock:
            here = torch.cuda.current_stream(self._device)
            here.wait_event(self._done)
            try:
                yield
            finally:
                self._done.record(here)

    @torch.no_grad()
    def record(self, run: Program, inputs: list[Tensor]) -> _Recording:
        """What ``run`` does with these inputs, for replays that read what is in them then."""
        with torch.cuda.device(self._device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # libraries set themselves up in their first calls, which are not recorded
                for _ in range(2):
                    run(*inputs)
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()  # "thread_local": other threads may go on with the device meanwhile
            with torch.cuda.graph(graph, self._pool, aside, capture_error_mode="thread_local"):
                outputs = list(run(*inputs))
        return _Recording(graph, inputs, outputs)


@dataclass(frozen=True)
class _Recording:
    graph: Any
    inputs: list[Tensor]
    outputs: list[Tensor]  # held, so that no later recording takes their memory


class Recorded:
    """A program that is recorded for the shapes it meets, the first few; with others it is run plainly."""

    def __init__(self, run: Program, graph: Graph, counts: Sequence[int], recorder: Recorder) -> None:
        """Record some shapes at once, so that a stream does not wait for it; they share their inputs' memory.

        Args:
            run: launches kernels on the current stream, and waits for none.
            graph: what ``run`` computes.
            counts: of pictures or of references, to be recorded now.
        """
        self._run, self._recorder = run, recorder
        self._recordings: dict[Shapes, _Recording] = {}
        largest = graph.examples(max(counts)) if counts else []
        for count in sorted(counts, reverse=True):  # the largest first: the others fit into what it took
            inputs = [
                whole[tuple(slice(side) for side in graph.shape(name, count))]
                for name, whole in zip(graph.inputs, largest, strict=True)
            ]
            with recorder.turn():
                self._recordings[_shapes(inputs)] = recorder.record(run, inputs)

    @torch.no_grad()
    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        shapes = _shapes(tensors)
        with self._recorder.turn():
            if shapes not in self._recordings:
                if len(self._recordings) == _MOST:
                    return self._run(*tensors)
                self._recordings[shapes] = self._recorder.record(self._run, [t.clone() for t in tensors])
            found = self._recordings[shapes]
            for own, given in zip(found.inputs, tensors, strict=True):
                own.copy_(given)
            found.graph.replay()
            return [tensor.clone() for tensor in found.outputs]  # the next replay writes over them


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple(tensor.shape for tensor in tensors)
