"""An engine of the small model in which everything matters, and images for it."""

from __future__ import annotations

import numpy as np
import torch

from personalive.engine.engine import Engine
from personalive.models.networks import Networks
from personalive.runtime.directions import find_directions
from personalive.training.scratch import build_networks
from personalive.training.shapes import ModelShape
from support import golden, keyseeded
from support.small_model import SMALL_SHAPE, SMALL_SIZE_PX


def key_seeded_networks(shape: ModelShape = SMALL_SHAPE) -> Networks:
    """Every weight is seeded by its key.

    Unlike fresh networks, these have no layer that begins as zero: motion, pose and neighbours all show.
    """
    networks = build_networks(shape)
    for network in networks.modules().values():
        network.load_state_dict(keyseeded.state_dict(keyseeded.layout_of(network)))
        network.eval().requires_grad_(False)
    return networks


def small_engine(networks: Networks | None = None) -> Engine:
    """64 px; of networks made now unless given."""
    networks = key_seeded_networks() if networks is None else networks
    return Engine(networks, name="small", find_directions=find_directions)


def noise_images(count: int, seed: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8 smooth noise."""
    low = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = golden.upsampled(low, SMALL_SIZE_PX).mul(255).round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().numpy()
