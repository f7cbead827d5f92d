"""Stand-ins for the released weights: a checkpoint whose every value follows from its key.

The released files are too large to ship. The recorded tensors in ``tests/golden`` were made by running the
original networks on this stand-in, so a network with the same keys, shapes and arithmetic gives the same
numbers. The arithmetic here must therefore never change.

A *layout* is ``{key: (shape, dtype)}``, the form in which ``manifest_small.json`` lists each file.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Layout = Mapping[str, tuple[Sequence[int], str]]

# Plausible head geometry, so that crops and poses are not degenerate.
_HEAD_SCALES = {
    "detector.fc_kp.weight": 0.05,
    "detector.fc_t.weight": 0.05,
    "detector.fc_scale.weight": 0.05,
    "detector.fc_kp.bias": 4.0,
    # Motion tokens of order 1, so that attention to them is not a hard choice that rounding can flip.
    "final_proj.weight": 0.04,
}


def state_dict(layout: Layout, salt: str = "") -> dict[str, Tensor]:
    """Every tensor of one file; another ``salt`` gives other values under the same keys."""
    return {key: tensor(key, shape, dtype, salt) for key, (shape, dtype) in layout.items()}


def layout_of(module: nn.Module) -> Layout:
    """The layout that a module asks for, for sizes that no manifest lists."""
    return {
        key: (list(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in module.state_dict().items()
    }


def write_checkpoint(manifest: Mapping[str, Any], folder: Path, salt: str = "") -> None:
    """Write all configs and weight files of a manifest in the released folder layout (small: 0.6 GB)."""
    for name, config in manifest["configs"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(config, indent=2))
    for name, layout in manifest["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state_dict(layout, salt), folder / name)


def tensor(key: str, shape: Sequence[int], dtype: str, salt: str = "") -> Tensor:
    """The value of one key."""
    if dtype != "float32":
        if key.endswith("position_ids"):
            return torch.arange(shape[-1]).expand(tuple(shape)).clone()
        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype))
    table = _fixed_table(key, shape)
    if table is not None:
        return table
    rng = np.random.default_rng(zlib.crc32((salt + key).encode()))
    noise = rng.standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(_scaled(key, noise), dtype=np.float32))


def _fixed_table(key: str, shape: Sequence[int]) -> Tensor | None:
    """Tables that the released files hold but that nobody trained."""
    if key == "idx_tensor":
        return torch.arange(66, dtype=torch.float32)
    if key == "pe" or key.endswith("pos_encoder.pe"):
        return torch.from_numpy(_sinusoids(shape[1], shape[2], interleaved=key != "pe"))
    return None


def _sinusoids(length: int, width: int, *, interleaved: bool) -> np.ndarray:
    """(1, length, width): sine and cosine on even and odd channels, or in the first and second half."""
    position = np.arange(length, dtype=np.float64)[:, None]
    rate = 10000.0 ** (-np.arange(0, width, 2) / width)[None]
    sine, cosine = np.sin(position * rate), np.cos(position * rate)
    pair = np.stack([sine, cosine], axis=-1 if interleaved else 1)
    return pair.reshape(1, length, width).astype(np.float32)


def _scaled(key: str, noise: np.ndarray) -> np.ndarray:
    """Standard normal noise brought to the size that suits the key, so that activations stay of order 1."""
    if key.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif key.endswith("running_mean"):
        noise = 0.1 * noise
    elif noise.ndim >= 2 and key.endswith("weight"):
        noise = noise / math.sqrt(np.prod(noise.shape[1:]))
    elif key.endswith("weight"):
        noise = 1 + 0.1 * noise
    else:
        noise = 0.05 * noise
    if key in _HEAD_SCALES:
        noise = _HEAD_SCALES[key] * noise
    if key == "detector.fc_scale.bias":
        noise = 1.5 + noise
    # Attention that matters: conditioning moves the output about as much as the input does.
    if key.endswith(("to_out.0.weight", "attn1.to_v.weight", "attn1.to_q.weight")) or (
        "attention_blocks" in key and key.endswith("to_q.weight")
    ):
        noise = 2 * noise
    return noise
