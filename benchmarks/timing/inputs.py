"""The model that is timed and its inputs: the demo's portrait, and the same head turning."""

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
TURN_DEG, SHIFT, PERIOD_FRAMES = 8.0, 0.03, 32  # how far the driver leans and moves (image sides), how fast


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


@dataclass(frozen=True)
class Inputs:
    """Portrait and driving windows of a stream."""

    portrait: np.ndarray  # (S, S, 3) uint8
    windows: tuple[np.ndarray, ...]  # (4, S, S, 3) uint8 each
    seed: int


def make_inputs(config: ModelConfig, calls: int, seed: int) -> Inputs:
    """The demo's portrait at the model's size, and it swaying as the driver."""
    size = (config.image_size_px, config.image_size_px)
    path = resources.files("personalive") / "assets" / "demo" / "portrait.png"
    with path.open("rb") as file:
        image = Image.open(file).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    corner = image.getpixel((0, 0))
    frames = []
    for number in range(calls * config.chunk_frames):
        sway = math.sin(2 * math.pi * number / PERIOD_FRAMES)
        shift = (round(SHIFT * sway * size[0]), 0)
        turned = image.rotate(TURN_DEG * sway, Image.Resampling.BICUBIC, translate=shift, fillcolor=corner)
        frames.append(np.asarray(turned))
    windows = np.stack(frames).reshape(calls, config.chunk_frames, *size, 3)
    return Inputs(np.array(image), tuple(windows), seed)
