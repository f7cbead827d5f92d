"""The small model, plainly run, and programs made from it once for all tests of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from personalive.checkpoints.programs import ProgramStore
from personalive.models.bundle import Networks
from personalive.streaming.backends.base import Backend
from personalive.streaming.backends.open import open_backend
from support.small_engine import key_seeded_networks
from support.small_model import write_small_model

Opener = Callable[..., Backend]


@pytest.fixture(scope="session")
def networks() -> Networks:
    return key_seeded_networks()


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> ProgramStore:
    return ProgramStore(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def opened(networks, store) -> Opener:
    """Opens a backend of the small model by name, from programs that are made once."""

    def open_it(name: str, precision: torch.dtype = torch.float32) -> Backend:
        return open_backend(name, networks, precision=precision, identity="small", store=store)

    return open_it


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that no test changes."""
    return write_small_model(tmp_path_factory.mktemp("backends") / "weights")
