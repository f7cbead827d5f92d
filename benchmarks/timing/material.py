"""The model that is timed, and what it is shown: the demo's portrait, and the same head turning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from PIL import Image

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.networks import load_networks
from personalive.config import ModelConfig
from personalive.models.networks import Networks
from timing.seeded import NAME, released_shape, seeded_networks

FULL = "full"
TURN_DEG, SHIFT, PERIOD_FRAMES = 8.0, 0.03, 32  # how far the driver leans and moves (picture sides), how fast


@dataclass(frozen=True)
class Model:
    """A model that can be loaded as often as there are contenders: each may do as it likes with its networks."""

    name: str
    config: ModelConfig
    load: Callable[[torch.device, torch.dtype], Networks]
    identity: str  # of its weights, for what backends keep on disk


def find_model(weights: str, device: torch.device, seed: int) -> Model:
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


@dataclass(frozen=True)
class Material:
    """Pictures for a stream."""

    portrait: np.ndarray  # (S, S, 3) uint8
    windows: tuple[np.ndarray, ...]  # (4, S, S, 3) uint8 each
    seed: int


def find_material(config: ModelConfig, calls: int, seed: int) -> Material:
    """The demo's portrait at the model's size, and it swaying as the driver."""
    size = (config.image_size_px, config.image_size_px)
    path = resources.files("personalive") / "assets" / "demo" / "portrait.png"
    with path.open("rb") as file:
        picture = Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    corner = picture.getpixel((0, 0))
    frames = []
    for number in range(calls * config.chunk_frames):
        sway = math.sin(2 * math.pi * number / PERIOD_FRAMES)
        shift = (round(SHIFT * sway * size[0]), 0)
        turned = picture.rotate(TURN_DEG * sway, Image.Resampling.BICUBIC, translate=shift, fillcolor=corner)
        frames.append(np.asarray(turned))
    windows = np.stack(frames).reshape(calls, config.chunk_frames, *size, 3)
    return Material(np.array(picture), tuple(windows), seed)
