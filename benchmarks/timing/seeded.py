"""The released shape with values that follow from keys: a full-size model in seconds, without its 12 GB of files.

Speed and memory are those of the released model; images are noise. Values are scaled so that activations stay of
order 1 (as in ``tests/support/keyseeded.py``); they are drawn on the device, so they differ between kinds of devices.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from personalive.checkpoints.folder import CheckpointFolder
from personalive.checkpoints.layout import parts_of
from personalive.checkpoints.networks import build_part, unet_config, unet_to_diffusers
from personalive.models.networks import Networks
from personalive.training.shapes import SHAPES

NAME = "key-seeded"
TABLES = ("pe", "idx_tensor")  # nobody trained them: built with their values
HEAD_SCALES: Mapping[str, float] = MappingProxyType(  # plausible heads, so that crops and poses are not degenerate
    {
        "detector.fc_kp.weight": 0.05,
        "detector.fc_t.weight": 0.05,
        "detector.fc_scale.weight": 0.05,
        "detector.fc_kp.bias": 4.0,
        "final_proj.weight": 0.04,
    }
)


def released_shape() -> CheckpointFolder:
    """The configs of the released model, as if they had been read from a folder."""
    shape = SHAPES["full"]
    return CheckpointFolder(
        root=Path(NAME),
        name=NAME,
        config=shape.model,
        unet=unet_to_diffusers(shape.unet),
        vae=shape.vae,
        clip=shape.clip,
    )


def seeded_networks(folder: CheckpointFolder, *, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Networks:
    """All networks of these configs for inference; half precision is float32 rounded.

    On the meta device they have shapes alone.
    """
    parts = {}
    for part in parts_of(folder.config):
        module = build_part(folder, part)
        if device.type != "meta":
            fill(module, device=device, dtype=dtype, seed=seed, salt=part)
        parts[part] = nn.Module.to(module, device=device, dtype=dtype).eval().requires_grad_(False)
    return Networks(config=folder.config, unet_config=unet_config(folder), **cast(dict[str, Any], parts))


@torch.no_grad()
def fill(module: nn.Module, *, device: torch.device, dtype: torch.dtype, seed: int, salt: str) -> None:
    """Give every trained tensor of the module a value of its own; tables and counters keep theirs."""
    generator = torch.Generator(device)
    values = {}
    for key, tensor in module.state_dict().items():
        if not tensor.is_floating_point() or key.rpartition(".")[2] in TABLES:
            continue
        generator.manual_seed(zlib.crc32(f"{seed} {salt} {key}".encode()))
        noise = torch.randn(tensor.shape, generator=generator, device=device)
        values[key] = scaled(key, noise).to(dtype)
    module.load_state_dict(values, strict=False, assign=True)


def scaled(key: str, noise: Tensor) -> Tensor:
    """Standard normal noise brought to the size that suits the key."""
    if key.endswith("running_var"):
        noise = 1 + 0.1 * noise.abs()
    elif key.endswith("running_mean"):
        noise = 0.1 * noise
    elif noise.ndim >= 2 and key.endswith("weight"):
        noise = noise / math.sqrt(noise[0].numel())
    elif key.endswith("weight"):
        noise = 1 + 0.1 * noise
    else:
        noise = 0.05 * noise
    noise = HEAD_SCALES.get(key, 1.0) * noise
    if key == "detector.fc_scale.bias":
        noise = 1.5 + noise
    # attention that matters: conditioning moves the output about as much as the input does
    to_query = "attention_blocks" in key and key.endswith("to_q.weight")
    if to_query or key.endswith(("to_out.0.weight", "attn1.to_v.weight", "attn1.to_q.weight")):
        noise = 2 * noise
    return noise
