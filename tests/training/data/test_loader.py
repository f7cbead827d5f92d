"""Samples ahead of the device: loader processes and cached batches give what drawing at once gives."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from personalive.errors import DeviceError, InputError
from personalive.training.data.loader import Source, load
from personalive.training.stages.image_level import MotionLosses
from support.toy_run import TOY_DETAIL_SHAPE, rows, toy_config, toy_context, toy_loop, toy_networks
from support.toy_set import ToySet


class Broken(ToySet):
    """A set whose files are gone."""

    def pair(self, rng: np.random.Generator):
        raise InputError("clip 3: is missing; prepare it again")


def test_loader_processes_draw_the_same_samples_in_order():
    source, keys = Source(ToySet(), (0, 3), (2, 1)), [(step, range(2)) for step in range(5)]
    here, there = (list(load(source, keys, workers)) for workers in (0, 2))
    assert len(here) == len(there) == 5
    for one, other in zip(here, there, strict=True):
        for left, right in zip(one.samples, other.samples, strict=True):
            np.testing.assert_array_equal(left.target, right.target)
        draws = [[rng.random() for rng in drawn.rngs] for drawn in (one, other)]  # all further draws
        assert draws[0] == draws[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_drawing_raises_stays_one_line(workers: int):
    with pytest.raises(InputError) as error:
        list(load(Source(Broken(), (0, 3)), [(0, range(2))], workers))
    assert str(error.value) == "clip 3: is missing; prepare it again"


def test_cached_batches_are_those_that_were_made(tmp_path: Path):
    networks = toy_networks(TOY_DETAIL_SHAPE)
    losses = MotionLosses(toy_context(toy_config("motion", "data.cached=5", "steps=3"), networks))
    taken = list(losses.batches(0, tmp_path, lambda progress: None))
    assert len(taken) == 3
    cached = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert "target.npy" in cached
    assert np.load(tmp_path / "cache" / "target.npy").dtype == np.uint8
    made = losses.make(losses.source.draw(1 << 41, range(5)).samples)  # as the cache drew them
    for batch, rngs in taken:
        assert len(rngs) == 2
        for row in range(2):
            same = [n for n in range(5) if torch.equal(made.target[n], batch.target[row])]
            assert len(same) == 1
            for name, value in batch.tensors().items():
                wanted = made.tensors()[name][same[0]]
                torch.testing.assert_close(value[row].float(), wanted.float(), rtol=1e-3, atol=2e-3)


def test_a_run_with_a_cache_is_resumed_without_drawing_again(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    toy_loop(whole, toy_config("motion", "steps=4", "data.cached=3")).run()
    toy_loop(parts, toy_config("motion", "steps=2", "data.cached=3")).run()
    loop = toy_loop(parts, toy_config("motion", "steps=4", "data.cached=3"))
    before = loop.stage.context.data.pairs  # type: ignore[attr-defined]
    loop.run()
    assert loop.stage.context.data.pairs == before  # type: ignore[attr-defined]
    assert rows(parts) == rows(whole)


class Killed(ToySet):
    """A set that kills the process that draws from it."""

    def pair(self, rng: np.random.Generator):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_loader_process_is_one_line():
    with pytest.raises(DeviceError, match=r"lower data\.workers"):
        list(load(Source(Killed(), (0, 3)), [(0, range(2))], 1))
