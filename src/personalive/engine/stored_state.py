"""State of a stream as tensors and JSON, and back. Nothing is pickled; what a stream begins with is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalive.device import HostCopy
from personalive.engine.face_engine import Driver, FaceState
from personalive.engine.state import Motion, Reference, StreamState
from personalive.models.attention import KV
from personalive.vision.face_move import FaceMotion
from personalive.vision.keypoints import HeadPose
from personalive.vision.one_euro import OneEuro, OneEuroConfig

_CLASSES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (StreamState, Reference, Motion, HeadPose, KV, FaceState, Driver, FaceMotion, OneEuro, OneEuroConfig)
}
_READERS: dict[str, Callable[[Tensor, torch.device], Any]] = {
    "Tensor": lambda tensor, device: tensor.to(device),
    "HostCopy": lambda tensor, _: HostCopy(tensor),
    "ndarray": lambda tensor, _: tensor.numpy(),
}
_NEW: Any = object()  # in the place of a start's value where there is none


def pack_state(value: Any, start: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a state, whose tensors and arrays are put into ``tensors``, on the CPU.

    Args:
        value: a state, or a part of one.
        start: the same part of the state that the stream began with. What both share is left out.
        tensors: by keys that the JSON names.
    """
    if value is start:
        return {"start": True}
    if isinstance(value, Tensor | HostCopy | np.ndarray):
        key = f"{len(tensors):04}"
        found = value.wait() if isinstance(value, HostCopy) else torch.as_tensor(value)
        tensors[key] = found.detach().cpu().contiguous().clone()  # views share memory, which files cannot
        return {type(value).__name__: key}
    if type(value).__name__ in _CLASSES:
        parts = _parts(value)
        shared = _parts(start) if type(start) is type(value) else {}
        fields = {name: pack_state(part, shared.get(name, _NEW), tensors) for name, part in parts.items()}
        return {type(value).__name__: fields}
    if isinstance(value, Mapping):
        shared = start if isinstance(start, Mapping) else {}
        return {"map": {name: pack_state(part, shared.get(name, _NEW), tensors) for name, part in value.items()}}
    if isinstance(value, Sequence) and not isinstance(value, str):
        shared = [*start, *[_NEW] * len(value)] if isinstance(start, Sequence) else [_NEW] * len(value)
        return {"items": [pack_state(part, other, tensors) for part, other in zip(value, shared, strict=False)]}
    return value


def unpack_state(packed: Any, start: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """State that ``pack_state`` packed; sequences become tuples.

    Args:
        packed: its JSON.
        start: a state that began as the packed one did.
        tensors: as packed.
        device: of the state's tensors.

    Raises:
        LookupError, TypeError, ValueError: the JSON is not of a state, or of another start.
    """
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "start":
        return start
    if kind in _READERS:
        return _READERS[kind](tensors[content], device)
    if kind in _CLASSES:
        shared = _parts(start) if type(start) is _CLASSES[kind] else {}
        return _CLASSES[kind](
            **{name: unpack_state(part, shared.get(name), tensors, device) for name, part in content.items()}
        )
    if kind == "map":
        shared = start if isinstance(start, Mapping) else {}
        return {name: unpack_state(part, shared.get(name), tensors, device) for name, part in content.items()}
    if kind != "items":
        raise LookupError(f"no {kind} is part of a state")
    shared = [*(start if isinstance(start, Sequence) else ()), *[None] * len(content)]
    return tuple(unpack_state(part, other, tensors, device) for part, other in zip(content, shared, strict=False))


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, KV):
        return value._asdict()
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
