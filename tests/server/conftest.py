"""A small engine in which everything matters, and a server around it that has no limits worth naming."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from personalive.config import LiveConfig
from personalive.streaming.engine import Engine
from support.live_checks import generous
from support.live_server import LiveServer, running
from support.small_engine import noise_pictures, small_engine


@pytest.fixture(scope="session")
def engine() -> Engine:
    return small_engine()


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """(8, 64, 64, 3) uint8 smooth noise."""
    return noise_pictures(8, 7)


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[LiveServer]:
    """One for all tests of a file."""
    with running(lambda: engine, live=LiveConfig(stats_interval_s=0.1), server=generous()) as found:
        yield found
