"""One backend with an engine of its own: set up, looked at once, then timed by turns with the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from personalive.config import FULL, MemoryPreset
from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.evaluation.benchmark import Inputs, Memory, settle, with_keyframes
from personalive.models.networks import Networks
from personalive.runtime import registry as backends
from timing.baseline import Baseline
from timing.inputs import Model
from timing.stages import Call, timed_call

BASELINE = "baseline"
HIGHEST = 255  # of a byte


@dataclass(frozen=True)
class Spec:
    """Backend and dtype."""

    name: str
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.name}, {dtype_name(self.dtype)}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Number of calls of each kind."""

    keyframes: tuple[int, ...] = (0, 1, 3)
    memory: MemoryPreset = FULL
    rounds: int = 20  # timed calls of each candidate with each number of keyframes
    warm_calls: int = 3  # before them
    stream_calls: int = 8  # of the stream whose images are compared
    repeats: int = 3  # of what is timed alone: first frame, keyframe


def dtype_name(dtype: torch.dtype) -> str:
    """As torch writes it, without "torch."."""
    return str(dtype).removeprefix("torch.")


# --- the one place where backends are made -------------------------------------------------------------------------


def open_backend(spec: Spec, networks: Networks, identity: str, memory: MemoryPreset) -> Backend:
    """Open the backend that runs these networks.

    Raises:
        Exception: whatever keeps it from running here; its text becomes a row of the table.
    """
    if spec.name == BASELINE:
        return Baseline(networks)
    return backends.open_backend(
        spec.name, networks, precision=spec.dtype, identity=identity, decode_frames=memory.decode_frames
    )


def network_dtype(spec: Spec) -> torch.dtype:
    """Dtype in which the backend takes its networks."""
    return spec.dtype if spec.name == BASELINE else backends.network_dtype(spec.name, spec.dtype)


def fitting_dtype(name: str, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, or the nearest that the backend has: where none was asked for."""
    return dtype if name == BASELINE else backends.default_precision(name, device, dtype)


# --- candidates ----------------------------------------------------------------------------------------------------


@dataclass
class Candidate:
    """Backend and its measurements so far."""

    spec: Spec
    engine: Engine | None = None
    states: dict[int, StreamState] = field(default_factory=dict)  # by number of keyframes
    calls: dict[int, list[Call]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    by_turns: bool = False  # timed by turns with the other candidates

    def close(self, error: str | None = None) -> None:
        """Free everything but the figures."""
        self.engine, self.states = None, {}
        self.error = error or self.error


def set_up(
    candidate: Candidate, device: torch.device, model: Model, inputs: Inputs, plan: Plan, wanted: Tensor | None
) -> None:
    """Make the engine, run every kind of call once, then look at everything that is not timed by turns.

    Args:
        wanted: (N, S, S, 3) uint8, the stream's frames in float32; None if they are unknown.
    """
    figures = candidate.figures
    memory = Memory(device)
    loading = time.perf_counter()
    networks = model.load(device, network_dtype(candidate.spec))
    settle(device)
    begun = time.perf_counter()
    figures["load_s"] = begun - loading
    memory.reset()
    backend = open_backend(candidate.spec, networks, model.identity, plan.memory)
    engine = Engine(networks, backend=backend, memory=plan.memory)
    figures["open_s"] = time.perf_counter() - begun
    candidate.engine = engine
    first = stream(engine, inputs, plan.stream_calls)
    figures["first_frame_cold_s"] = first.to_first_driven_s
    candidate.states = {count: with_keyframes(engine, first.state, count) for count in plan.keyframes}
    for state in candidate.states.values():
        engine.step(state, inputs.windows[0])
    settle(device)
    figures["setup_s"] = time.perf_counter() - begun
    figures["finite"] = bool(first.state.latents.isfinite().all())
    if wanted is not None:
        figures |= agreement(first.frames, wanted)
    figures["first_frame_s"] = first_frame_s(engine, inputs, plan.repeats)
    figures["keyframe_ms"] = keyframe_ms(engine, first.state, plan.repeats)
    for _ in range(plan.warm_calls):
        take_turn(candidate, inputs)
    figures["peak_memory_bytes"], figures["peak_reserved_bytes"] = memory.peak_bytes(), memory.reserved_bytes()


def take_turn(candidate: Candidate, inputs: Inputs) -> None:
    """One timed call with each number of keyframes."""
    assert candidate.engine is not None
    for count, state in candidate.states.items():
        calls = candidate.calls.setdefault(count, [])
        window = inputs.windows[len(calls) % len(inputs.windows)]
        calls.append(timed_call(candidate.engine, state, window))


def take_turns(candidates: Sequence[Candidate], inputs: Inputs, rounds: int, go_on: Callable[[int], bool]) -> None:
    """Time all candidates by turns, the first one changing; what fails leaves with its reason.

    Args:
        go_on: asked with the number of every round before it.
    """
    for number in range(rounds):
        running = [candidate for candidate in candidates if candidate.engine is not None]
        if not running or not go_on(number):
            return
        first = number % len(running)
        for candidate in (*running[first:], *running[:first]):
            if not candidate.by_turns:
                candidate.calls, candidate.by_turns = {}, True
            attempt(candidate, lambda candidate=candidate: take_turn(candidate, inputs))


def attempt(candidate: Candidate, action: Callable[[], None]) -> None:
    """Run it; a failure ends this candidate and not the run."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 (a backend may fail in any way; the table says how)
        candidate.close(f"{type(error).__name__}: {' '.join(str(error).split())}")


# --- what is looked at once ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """Result of a stream."""

    frames: Tensor  # (N, S, S, 3) uint8, all that left
    state: StreamState
    to_first_driven_s: float  # from the start until the first frame that shows the driver's motion left


def stream(engine: Engine, inputs: Inputs, calls: int) -> Stream:
    """Start, and so many calls, without keyframes."""
    chunks, first_s = [], math.nan
    settle(engine.device)
    begun = time.perf_counter()
    state = engine.start(inputs.portrait, seed=inputs.seed, keyframe_threshold=math.inf)
    for number in range(calls):
        state, frames = engine.step(state, inputs.windows[number])
        chunks.append(frames)
        if number == engine.warmup_frames // engine.chunk_frames:
            first_s = time.perf_counter() - begun
    return Stream(torch.cat(chunks), state, first_s)


def calls_to_first_frame(config: Any) -> int:
    """Calls until the first driving frame leaves."""
    return config.warmup_frames // config.chunk_frames + 1


def first_frame_s(engine: Engine, inputs: Inputs, repeats: int) -> float:
    """Seconds from a portrait to the first frame that shows the driver's motion, once all is warm."""
    calls = calls_to_first_frame(engine.config)
    return median(stream(engine, inputs, calls).to_first_driven_s for _ in range(repeats))


@torch.no_grad()
def keyframe_ms(engine: Engine, state: StreamState, repeats: int) -> float:
    """Extra time of a call that adds a keyframe."""
    times = []
    for _ in range(repeats):
        settle(engine.device)
        begun = time.perf_counter()
        engine.backend.project(state.latents[:, :, 0], state.reference.context)
        settle(engine.device)
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times)


def agreement(found: Tensor, wanted: Tensor) -> Mapping[str, Any]:
    """Agreement of (N, S, S, 3) uint8 frames with others; a PSNR of None is that of equal images."""
    difference = found.float() - wanted.float()
    by_frame = difference.square().mean(dim=(1, 2, 3)).double()
    return {
        "psnr_db": psnr_db(float(by_frame.mean())),
        "psnr_worst_frame_db": psnr_db(float(by_frame.max())),
        "largest_difference_levels": int(difference.abs().max()),
    }


def psnr_db(error: float) -> float | None:
    """PSNR of a mean squared error in levels of a byte."""
    return 10 * math.log10(HIGHEST**2 / error) if error else None
