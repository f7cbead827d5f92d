"""A small engine in which everything matters, and a server around it that has no limits worth naming."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from personalive.engine.engine import Engine
from personalive.live.config import LiveConfig
from support.live_checks import generous, turned
from support.live_server import LiveClient, LiveServer, Socket, running
from support.small_engine import noise_images, small_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    return small_engine()


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """(8, 64, 64, 3) uint8 smooth noise."""
    return noise_images(8, 7)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[LiveServer]:
    """One for all tests of a file."""
    with running(lambda: engine, live=LiveConfig(stats_interval_s=0.1), server=generous()) as found:
        yield found


@pytest.fixture
def client(server: LiveServer, images: np.ndarray) -> Iterator[LiveClient]:
    """A session with a portrait."""
    client = server.open()
    assert client.put_portrait(images[0]).json() == {
        "note": "no face found: the largest centred square is used",
        "generation": 1,
    }
    yield client
    client.request("DELETE")


@pytest.fixture
def socket(client: LiveClient) -> Iterator[Socket]:
    """Its driver's socket."""
    socket = client.connect()
    yield socket
    socket.close()


@pytest.fixture
def camera(images: np.ndarray) -> Iterator[np.ndarray]:
    """A driver without end."""
    return itertools.cycle(turned(images[1], 7))
