"""What contenders are held against: the stream's frames in float32, and the operations that a call takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from timing.baseline import Baseline
from timing.contender import BASELINE, Plan, dtype_name, stream, with_keyframes
from timing.material import Material, Model
from timing.report import Flops
from timing.stages import counted_call


@dataclass
class Yardstick:
    """Found on networks that are gone afterwards."""

    frames: Tensor | None = None  # (N, S, S, 3) uint8
    flops: dict[str, Flops] = field(default_factory=dict)  # of "engine" and "baseline"
    notes: list[str] = field(default_factory=list)  # what could not be had, and why


def measure(device: torch.device, model: Model, material: Material, plan: Plan, dtype: torch.dtype) -> Yardstick:
    """Run the stream in float32 and count. Where memory is not enough, count in ``dtype`` and have no frames."""
    found = Yardstick()
    for precision in dict.fromkeys((torch.float32, dtype)):
        try:
            with _exact_products():
                _measure(found, device, model, material, plan, precision)
        except (torch.OutOfMemoryError, DeviceError):  # at work, and while loading
            found.notes.append(f"not enough memory for {dtype_name(precision)}: nothing is compared with it")
        else:
            break
    return found


def _measure(
    found: Yardstick, device: torch.device, model: Model, material: Material, plan: Plan, dtype: torch.dtype
) -> None:
    networks = model.load(device, dtype)
    engine = Engine(networks)
    run = stream(engine, material, plan.stream_calls)
    if dtype == torch.float32:
        found.frames = run.frames
    straightforward = Engine(networks, backend=Baseline(networks))
    start = stream(straightforward, material, 1)  # a reference that holds features instead of keys and values
    for name, counted, state in (("engine", engine, run.state), (BASELINE, straightforward, start.state)):
        found.flops[name] = {
            count: counted_call(counted, with_keyframes(counted, state, count), material.windows[0])
            for count in plan.keyframes
        }


@contextmanager
def _exact_products() -> Iterator[None]:
    """Float32 means float32: no products of fewer bits inside."""
    backends: Any = torch.backends
    products, convolutions = backends.cuda.matmul, backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
