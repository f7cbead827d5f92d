"""A small engine in which everything matters, and a server around it that has no limits worth naming."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from personalive.config import LiveConfig
from personalive.streaming.engine import Engine
from personalive.training.build import build_networks
from support import golden, keyseeded
from support.live_checks import generous
from support.live_server import LiveServer, running
from support.small_model import SMALL_PRESET, SMALL_SIZE_PX


@pytest.fixture(scope="session")
def engine() -> Engine:
    """64 px; unlike in a fresh model no layer begins as zero, so that every input shows."""
    networks = build_networks(SMALL_PRESET)
    for network in networks.modules().values():
        network.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(network)))
        network.eval().requires_grad_(False)
    return Engine(networks, name="small")


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """(8, 64, 64, 3) uint8 smooth noise."""
    low = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    images = golden.upsampled(low, SMALL_SIZE_PX).mul(255).round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[LiveServer]:
    """One for all tests of a file."""
    with running(lambda: engine, live=LiveConfig(stats_interval_s=0.1), server=generous()) as found:
        yield found
