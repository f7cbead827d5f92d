"""What the parts of the benchmarks are tried on: the small model, and the pictures that they show any model."""

from __future__ import annotations

import pytest
import torch

from personalive.models.networks import Networks
from support.small_engine import key_seeded_networks
from timing.material import Material, Model, find_material

CPU = torch.device("cpu")
CALLS = 5  # of a stream: the last frames in flight have left


@pytest.fixture(scope="session")
def networks() -> Networks:
    return key_seeded_networks()


@pytest.fixture(scope="session")
def model(networks: Networks) -> Model:
    """Gives the same networks each time: nothing here changes them."""
    return Model("small", networks.config, lambda _device, _dtype: networks, "small")


@pytest.fixture(scope="session")
def material(networks: Networks) -> Material:
    return find_material(networks.config, CALLS, seed=0)
