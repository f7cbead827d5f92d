"""The small model, and inputs of any model."""

from __future__ import annotations

import pytest
import torch

from personalive.evaluation.benchmark import Inputs, make_inputs
from personalive.models.networks import Networks
from support.small_engine import key_seeded_networks
from timing.inputs import Model

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
def inputs(networks: Networks) -> Inputs:
    return make_inputs(networks.config, CALLS, seed=0)
