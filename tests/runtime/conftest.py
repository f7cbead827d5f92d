"""The small model, plainly run, and programs made from it once for all tests of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.runtime.cache import ProgramCache
from personalive.runtime.registry import open_backend
from support.small_engine import noise_pictures
from support.small_model import write_small_model

Opener = Callable[..., Backend]
CALLS = 14  # enough for all keyframes


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> ProgramCache:
    return ProgramCache(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def opened(networks, cache) -> Opener:
    """Opens a backend of the small model by name, from programs that are made once."""

    def open_it(name: str, precision: torch.dtype = torch.float32) -> Backend:
        return open_backend(name, networks, precision=precision, identity="small", cache=cache)

    return open_it


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that no test changes."""
    return write_small_model(tmp_path_factory.mktemp("backends") / "weights")


@pytest.fixture(scope="session")
def windows() -> np.ndarray:
    return noise_pictures(4 * CALLS, 3).reshape(CALLS, 4, 64, 64, 3)


@pytest.fixture(scope="session")
def stream(networks, windows) -> list[StreamState]:
    """States of a stream by torch, before each call; a low threshold makes keyframes early."""
    engine = Engine(networks)
    states = [engine.start(noise_pictures(1, 9)[0], keyframe_threshold=0.0)]
    for window in windows:
        states.append(engine.step(states[-1], window)[0])
    assert {state.keyframes for state in states[:-1]} == {0, 1, 2, 3}
    return states
