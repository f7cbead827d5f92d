"""The model that is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks
from personalive.config import ModelConfig
from personalive.models.networks import Networks
from timing.seeded import NAME, released_shape, seeded_networks

FULL = "full"


@dataclass(frozen=True)
class Model:
    """Model that can be loaded anew for each candidate, which may change its networks."""

    name: str
    config: ModelConfig
    load: Callable[[torch.device, torch.dtype], Networks]
    identity: str  # of its weights, in the keys of cached programs


def open_model(weights: str, device: torch.device, seed: int) -> Model:
    """The released shape with seeded values for "full", else a weights folder or "tiny".

    Raises:
        CheckpointError: no such folder, or no weights in it.
    """
    if weights != FULL:
        folder = CheckpointFolder.open(weights)
        load = lambda device, dtype: load_networks(folder, device=device, dtype=dtype)  # noqa: E731
        return Model(folder.name, folder.config, load, folder.identity())
    shape = released_shape()
    return Model(
        NAME,
        shape.config,
        lambda device, dtype: seeded_networks(shape, device=device, dtype=dtype, seed=seed),
        f"{NAME}-{seed}-{device.type}",
    )
