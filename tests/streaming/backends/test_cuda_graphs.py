"""Which recording is replayed, with what, and what comes out. Recordings themselves need CUDA: see tests/cuda."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from personalive.streaming.backends import cuda_graphs
from personalive.streaming.backends.graphs import Graph


class Replays:
    """Computes anew from the inputs it was recorded with, into the outputs it gave then, as a CUDA graph does."""

    def __init__(self, run, inputs: list[Tensor]) -> None:
        self.run, self.inputs, self.count = run, inputs, 0
        self.outputs = [tensor.clone() for tensor in run(*inputs)]
        self.graph = self

    def replay(self) -> None:
        self.count += 1
        for output, made in zip(self.outputs, self.run(*self.inputs), strict=True):
            output.copy_(made)


class StandIn:
    """In the place of a ``Recorder``."""

    def __init__(self) -> None:
        self.turns, self.made = 0, []

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.turns += 1
        yield

    def record(self, run, inputs: list[Tensor]) -> Replays:
        self.made.append(Replays(run, inputs))
        return self.made[-1]


@pytest.fixture
def recorder() -> Any:
    return StandIn()


@pytest.fixture
def graph() -> Graph:
    """A reference of 3 tokens a picture beside an input whose shape stays."""
    inputs = {"latents": torch.zeros(2, 5), "reference": torch.zeros(1, 6, 5)}
    return Graph(nn.Identity(), inputs, ("sum",), {"reference": {1: ("r", 3)}})


def total(latents: Tensor, reference: Tensor) -> Sequence[Tensor]:
    return [latents + reference.sum(dim=1)]


def given(pictures: int) -> tuple[Tensor, Tensor]:
    return torch.rand(2, 5), torch.rand(1, 3 * pictures, 5)


def test_every_count_has_a_recording_and_all_share_their_inputs(recorder, graph):
    recorded = cuda_graphs.Recorded(total, graph, (1, 2, 3), recorder)
    assert [replays.inputs[1].shape[1] for replays in recorder.made] == [9, 6, 3]
    assert len({replays.inputs[1].data_ptr() for replays in recorder.made}) == 1
    assert all(tensor.is_contiguous() for replays in recorder.made for tensor in replays.inputs)
    for pictures in (2, 3, 1, 2):
        tensors = given(pictures)
        torch.testing.assert_close(list(recorded(*tensors)), list(total(*tensors)))
    assert [replays.count for replays in recorder.made] == [1, 2, 1]


def test_what_was_given_is_not_written_over(recorder, graph):
    recorded = cuda_graphs.Recorded(total, graph, (1,), recorder)
    first = recorded(torch.ones(2, 5), torch.ones(1, 3, 5))[0]
    recorded(torch.zeros(2, 5), torch.zeros(1, 3, 5))
    assert (first == 4).all()


def test_what_comes_is_recorded_as_it_comes_until_there_are_enough(recorder, graph):
    recorded = cuda_graphs.Recorded(total, graph, (), recorder)
    for pictures in (2, 5, 2, 1, 3, 7, 7):
        tensors = given(pictures)
        torch.testing.assert_close(list(recorded(*tensors)), list(total(*tensors)))
    assert [replays.inputs[1].shape[1] // 3 for replays in recorder.made] == [2, 5, 1, 3]
    assert [replays.count for replays in recorder.made] == [2, 1, 1, 1]  # 7 was run plainly
