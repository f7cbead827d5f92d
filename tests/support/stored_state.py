"""A stream's state to a file and back: tensors as safetensors, the rest as text. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from personalive.device import HostCopy
from personalive.engine.state import Motion, Reference, StreamState
from personalive.models.attention import KV
from personalive.vision.keypoints import HeadPose

_NUMBERS = ("keyframe_threshold", "seed", "call")


def tensors(state: StreamState) -> dict[str, Tensor]:
    """Every tensor of the state by its place in it."""
    found: dict[str, Tensor] = {}
    _collect("", {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}, found)
    return found


def _collect(prefix: str, values: Mapping[str, Any], found: dict[str, Tensor]) -> None:
    for name, value in values.items():
        if isinstance(value, Tensor):
            found[prefix + name] = value
        elif isinstance(value, KV):
            _collect(f"{prefix}{name}/", value._asdict(), found)
        elif isinstance(value, tuple) and value:
            found[prefix + name] = torch.cat([sent.wait() for sent in value], dim=1)
        elif isinstance(value, Mapping):
            _collect(f"{prefix}{name}/", value, found)
        elif dataclasses.is_dataclass(value):
            _collect(f"{prefix}{name}/", {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, found)


def save(state: StreamState, path: Path) -> None:
    """Write to ``path``."""
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    save_file({k: v.contiguous().clone() for k, v in tensors(state).items()}, path, {"numbers": json.dumps(numbers)})


def load(path: Path) -> StreamState:
    """Read what ``save`` wrote."""
    with safe_open(path, framework="pt") as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        numbers = json.loads(file.metadata()["numbers"])

    def pose(prefix: str) -> HeadPose:
        return HeadPose(**{f.name: found[prefix + f.name] for f in dataclasses.fields(HeadPose)})

    blocks = {key.split("/")[2] for key in found if key.startswith("reference/kv/")}
    kv = {name: KV(found[f"reference/kv/{name}/key"], found[f"reference/kv/{name}/value"]) for name in blocks}
    return StreamState(
        reference=Reference(
            found["reference/image"],
            found["reference/context"],
            found["reference/latent"],
            kv,
            pose("reference/pose/"),
            found["reference/motion"],
        ),
        latents=found["latents"],
        motion=found["motion"],
        pose=found["pose"],
        poses=pose("poses/"),
        newest=Motion(found["newest/tokens"], pose("newest/poses/")) if "newest/tokens" in found else None,
        driver=pose("driver/") if "driver/kp" in found else None,
        bank=tuple(map(HostCopy, found["bank"].split(1, dim=1))),
        keyframe_candidates=tuple(map(HostCopy, found["keyframe_candidates"].split(1, dim=1)))
        if "keyframe_candidates" in found
        else (),
        **numbers,
    )
