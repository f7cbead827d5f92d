"""Reference of the candidates: the stream's frames in float32, and the operations of a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from personalive.engine.engine import Engine
from personalive.errors import DeviceError
from personalive.evaluation.benchmark import Inputs, with_keyframes
from timing.baseline import Baseline
from timing.candidate import BASELINE, Plan, dtype_name, stream
from timing.inputs import Model
from timing.report import Flops
from timing.stages import counted_call


@dataclass
class Reference:
    """Measured on networks that are freed afterwards."""

    frames: Tensor | None = None  # (N, S, S, 3) uint8
    flops: dict[str, Flops] = field(default_factory=dict)  # of "engine" and "baseline"
    notes: list[str] = field(default_factory=list)  # what is missing, and why


def measure(device: torch.device, model: Model, inputs: Inputs, plan: Plan, dtype: torch.dtype) -> Reference:
    """Run the stream in float32 and count. Where memory is not enough, count in ``dtype`` and have no frames."""
    found = Reference()
    for precision in dict.fromkeys((torch.float32, dtype)):
        try:
            with _exact_products():
                _measure(found, device, model, inputs, plan, precision)
        except (torch.OutOfMemoryError, DeviceError):  # at work, and while loading
            found.notes.append(f"not enough memory for {dtype_name(precision)}: nothing is compared with it")
        else:
            break
    return found


def _measure(
    found: Reference, device: torch.device, model: Model, inputs: Inputs, plan: Plan, dtype: torch.dtype
) -> None:
    networks = model.load(device, dtype)
    engine = Engine(networks)
    run = stream(engine, inputs, plan.stream_calls)
    if dtype == torch.float32:
        found.frames = run.frames
    straightforward = Engine(networks, backend=Baseline(networks))
    start = stream(straightforward, inputs, 1)  # a reference that holds features instead of keys and values
    for name, counted, state in (("engine", engine, run.state), (BASELINE, straightforward, start.state)):
        found.flops[name] = {
            count: counted_call(counted, with_keyframes(counted, state, count), inputs.windows[0])
            for count in plan.keyframes
        }


@contextmanager
def _exact_products() -> Iterator[None]:
    """Compute float32 products in full precision inside the block."""
    backends: Any = torch.backends
    products, convolutions = backends.cuda.matmul, backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
