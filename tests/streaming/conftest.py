"""A small model in which everything matters: 64 px, narrow, every weight seeded by its key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from personalive.models.bundle import Networks
from personalive.streaming.engine import Engine
from personalive.training.build import build_networks
from personalive.training.presets import TinyPreset
from support import golden, keyseeded
from support.small_model import SMALL_PRESET, SMALL_SIZE_PX


def key_seeded_networks(preset: TinyPreset) -> Networks:
    """Unlike fresh networks, these have no layer that begins as zero: motion, pose and neighbours all show."""
    networks = build_networks(preset)
    for network in networks.modules().values():
        network.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(network)))
        network.eval().requires_grad_(False)
    return networks


def noise_pictures(count: int, seed: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8 smooth noise."""
    low = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = golden.upsampled(low, SMALL_SIZE_PX).mul(255).round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture(scope="session")
def networks() -> Networks:
    return key_seeded_networks(SMALL_PRESET)


@pytest.fixture(scope="session")
def engine(networks: Networks) -> Engine:
    return Engine(networks, name="small")


@pytest.fixture(scope="session")
def moving(networks: Networks) -> Engine:
    """The same networks where frames enter as the portrait with its head moved."""
    config = dataclasses.replace(networks.config, entry="moved")
    return Engine(dataclasses.replace(networks, config=config), name="moving")


@pytest.fixture(scope="session")
def pictures():
    """``pictures(count, seed)``: smooth noise, (count, 64, 64, 3) uint8."""
    return noise_pictures


@pytest.fixture(scope="session")
def key_seeded():
    """``key_seeded(preset)``: networks of another shape with values in the same manner."""
    return key_seeded_networks
