"""Cost of each stage of a call: time by a clock, or operations by torch's counter.

The engine runs as it is; its own methods, and its backend's, are wrapped while a call is looked at. A stage that
comes twice in a call is added up:

    conditioning  reading the four driving frames, and their motion on the portrait
    denoiser      the one pass over all frames in flight
    step          what is around it: noise, the schedule's step, keyframes, the state
    decode        latents to images, and the detail head where a model has one
    copy_out      rounding to bytes, and to the host's memory
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.evaluation.benchmark import settle

STAGES = ("conditioning", "denoiser", "step", "decode", "copy_out")


class Meter(Protocol):
    """Quantity that grows during a call."""

    def read(self) -> Any:
        """Its current value, as a mark."""
        ...

    def between(self, first: Any, second: Any) -> float:
        """Growth from one mark to another; called after ``settle``."""
        ...


class WallClock:
    """Clock of the host, after the device has finished."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self) -> float:
        """Seconds."""
        settle(self.device)
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        """Milliseconds."""
        return 1e3 * (second - first)


class EventClock:
    """Clock of a CUDA device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self) -> torch.cuda.Event:
        """An event on the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Milliseconds."""
        return first.elapsed_time(second)


class FlopMeter:
    """Meter of floating-point operations, by a torch counter."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter

    def read(self) -> int:
        """Operations since it began."""
        return self.counter.get_total_flops()

    def between(self, first: int, second: int) -> float:
        """Operations."""
        return second - first


def clock_of(device: torch.device) -> Meter:
    """Clock that disturbs this device least."""
    return EventClock(device) if device.type == "cuda" else WallClock(device)


class Marks:
    """Marks of one meter, each at the end of a stage."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._marks: list[tuple[str, Any]] = []

    def begin(self) -> None:
        """Start the first stage."""
        self._marks = [("", self._meter.read())]

    def end(self, stage: str) -> None:
        """Count everything since the last mark to this stage."""
        self._marks.append((stage, self._meter.read()))

    def stages(self) -> dict[str, float]:
        """Sum of each stage."""
        found: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        for (_, before), (stage, after) in zip(self._marks, self._marks[1:], strict=False):
            found[stage] += self._meter.between(before, after)
        return found


@dataclass(frozen=True)
class Call:
    """Timing of one call."""

    ms: float  # from the driving frames to the images in the host's memory
    stages: Mapping[str, float]  # ms


def timed_call(engine: Engine, state: StreamState, window: np.ndarray) -> Call:
    """One ``Engine.step``; the state that it leads to is dropped, so that every call does the same."""
    marks = Marks(clock_of(engine.device))
    with marked(engine, marks):
        settle(engine.device)
        begun = time.perf_counter()
        marks.begin()
        engine.step(state, window)
        ms = 1e3 * (time.perf_counter() - begun)
        settle(engine.device)
    return Call(ms, marks.stages())


def counted_call(engine: Engine, state: StreamState, window: np.ndarray) -> dict[str, int]:
    """Floating-point operations of one call by stage, of networks that torch runs itself."""
    with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        marks = Marks(FlopMeter(counter))
        with marked(engine, marks):
            marks.begin()
            engine.step(state, window)
    return {stage: int(count) for stage, count in marks.stages().items()}


@contextmanager
def marked(engine: Engine, marks: Marks) -> Iterator[None]:
    """Mark the ends of the stages of the engine's steps inside the block."""
    backend = engine.backend
    with ExitStack() as wrapped:
        for owner, name, before, after in (
            (engine.conditioner, "condition", None, "conditioning"),
            (backend, "denoise", "step", "denoiser"),
            (engine, "advance", None, "step"),
            (engine, "decode_images", None, "decode"),
            (backend, "blend_mask", None, "decode"),  # the last of the detail head
            (engine, "decode", None, "copy_out"),
        ):
            wrapped.enter_context(_wrapped(owner, name, marks, before, after))
        yield


@contextmanager
def _wrapped(owner: object, name: str, marks: Marks, before: str | None, after: str) -> Iterator[None]:
    """End the stage ``before`` when the owner's method begins, and ``after`` when it returns."""
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            marks.end(before)
        result = inner(*args, **kwargs)
        marks.end(after)
        return result

    own = name in vars(owner)
    setattr(owner, name, outer)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, inner)
        else:
            delattr(owner, name)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """(b, h, n, c), (b, h, m, c), (b, h, m, d): scores, then their product with the values."""
    b, h, n, c = query
    return 2 * b * h * n * key[-2] * (c + value[-1])


# attention on CPUs is not among the operations that torch's counter knows
_UNCOUNTED: Any = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
