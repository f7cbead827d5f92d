"""One backend with an engine of its own: set up, looked at once, then timed by turns with the others."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from personalive.models.quantized import quantize_transformers
from torch import Tensor

from personalive.config import FULL, MemoryPreset
from personalive.device import HostCopy
from personalive.engine.backend import Backend
from personalive.engine.engine import Engine
from personalive.engine.keyframes import extend
from personalive.engine.state import StreamState
from personalive.models.networks import Networks
from personalive.runtime import registry as backends
from personalive.runtime.load import NONE
from timing.baseline import Baseline
from timing.machine import Memory
from timing.material import Material, Model
from timing.stages import Call, settle, timed_call

BASELINE = "baseline"
HIGHEST = 255  # of a byte


@dataclass(frozen=True)
class Spec:
    """Which backend, in which number formats."""

    name: str
    dtype: torch.dtype
    quantize: str = NONE  # how the denoiser's linear layers are narrowed

    def __str__(self) -> str:
        return f"{self.title}, {dtype_name(self.dtype)}"

    @property
    def title(self) -> str:
        """The backend, and how it narrows."""
        return self.name if self.quantize == NONE else f"{self.name}+{self.quantize}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is run."""

    keyframes: tuple[int, ...] = (0, 1, 3)
    memory: MemoryPreset = FULL
    rounds: int = 20  # timed calls of each contender with each number of keyframes
    warm_calls: int = 3  # before them
    stream_calls: int = 8  # of the stream whose pictures are compared
    repeats: int = 3  # of what is timed alone: first frame, keyframe


def dtype_name(dtype: torch.dtype) -> str:
    """As torch writes it, without "torch."."""
    return str(dtype).removeprefix("torch.")


# --- the one place where backends are made -------------------------------------------------------------------------


def open_backend(spec: Spec, networks: Networks, identity: str, memory: MemoryPreset) -> Backend:
    """What runs these networks.

    Raises:
        Exception: whatever keeps it from running here; its text becomes a row of the table.
    """
    if spec.name == BASELINE:
        return Baseline(networks)
    if spec.quantize != NONE:
        quantize_transformers(networks.denoising_unet, spec.quantize)
        identity += spec.quantize
    return backends.open_backend(
        spec.name, networks, precision=spec.dtype, identity=identity, decode_beside=memory.decode_beside
    )


def network_dtype(spec: Spec) -> torch.dtype:
    """The number format that the backend wants its networks in."""
    return spec.dtype if spec.name == BASELINE else backends.network_dtype(spec.name, spec.dtype)


def fitting_dtype(name: str, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The number format itself, or the nearest that the backend has: where nobody asked for one."""
    return dtype if name == BASELINE else backends.default_precision(name, device, dtype)


# --- contenders ----------------------------------------------------------------------------------------------------


@dataclass
class Contender:
    """A backend and what is known of it."""

    spec: Spec
    engine: Engine | None = None
    states: dict[int, StreamState] = field(default_factory=dict)  # by number of keyframes
    calls: dict[int, list[Call]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    by_turns: bool = False  # whether the calls were timed by turns with the other contenders'

    def close(self, error: str | None = None) -> None:
        """Let everything go but the figures."""
        self.engine, self.states = None, {}
        self.error = error or self.error


def set_up(
    contender: Contender, device: torch.device, model: Model, material: Material, plan: Plan, wanted: Tensor | None
) -> None:
    """Make the engine, run every kind of call once, then look at everything that is not timed by turns.

    Args:
        wanted: (N, S, S, 3) uint8, the stream's frames in float32; None if nobody knows them.
    """
    figures = contender.figures
    memory = Memory(device)
    loading = time.perf_counter()
    networks = model.load(device, network_dtype(contender.spec))
    settle(device)
    begun = time.perf_counter()
    figures["load_s"] = begun - loading
    memory.reset()
    backend = open_backend(contender.spec, networks, model.identity, plan.memory)
    engine = Engine(networks, backend=backend, memory=plan.memory)
    figures["open_s"] = time.perf_counter() - begun
    contender.engine = engine
    first = stream(engine, material, plan.stream_calls)
    figures["first_frame_cold_s"] = first.to_first_driven_s
    contender.states = {count: with_keyframes(engine, first.state, count) for count in plan.keyframes}
    for state in contender.states.values():
        engine.step(state, material.windows[0])
    settle(device)
    figures["setup_s"] = time.perf_counter() - begun
    figures["finite"] = bool(first.state.latents.isfinite().all())
    if wanted is not None:
        figures |= agreement(first.frames, wanted)
    figures["first_frame_s"] = first_frame_s(engine, material, plan.repeats)
    figures["keyframe_ms"] = keyframe_ms(engine, first.state, plan.repeats)
    figures["ahead_frames_per_s"] = ahead_frames_per_s(engine, first.state, material, plan.stream_calls)
    for _ in range(plan.warm_calls):
        take_turn(contender, material)
    figures["peak_memory_bytes"], figures["peak_reserved_bytes"] = memory.peak_bytes(), memory.reserved_bytes()


def take_turn(contender: Contender, material: Material) -> None:
    """One timed call with each number of keyframes."""
    assert contender.engine is not None
    for count, state in contender.states.items():
        calls = contender.calls.setdefault(count, [])
        window = material.windows[len(calls) % len(material.windows)]
        calls.append(timed_call(contender.engine, state, window))


def take_turns(
    contenders: Sequence[Contender], material: Material, rounds: int, go_on: Callable[[int], bool]
) -> None:
    """Time all contenders by turns, the first one changing; what fails leaves with its reason.

    Args:
        go_on: asked with the number of every round before it.
    """
    for number in range(rounds):
        running = [contender for contender in contenders if contender.engine is not None]
        if not running or not go_on(number):
            return
        first = number % len(running)
        for contender in (*running[first:], *running[:first]):
            if not contender.by_turns:
                contender.calls, contender.by_turns = {}, True
            attempt(contender, lambda contender=contender: take_turn(contender, material))


def attempt(contender: Contender, action: Callable[[], None]) -> None:
    """Run it; a failure ends this contender and not the run."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 (a backend may fail in any way; the table says how)
        contender.close(f"{type(error).__name__}: {' '.join(str(error).split())}")


# --- what is looked at once ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """A stream that was run."""

    frames: Tensor  # (N, S, S, 3) uint8, all that left
    state: StreamState
    to_first_driven_s: float  # from the start until the first frame that shows the driver's motion left


def stream(engine: Engine, material: Material, calls: int) -> Stream:
    """Start, and so many calls; keyframes are added by nobody."""
    chunks, first_s = [], math.nan
    settle(engine.device)
    begun = time.perf_counter()
    state = engine.start(material.portrait, seed=material.seed, keyframe_threshold=math.inf)
    for number in range(calls):
        state, frames = engine.step(state, material.windows[number])
        chunks.append(frames)
        if number == engine.warmup_frames // engine.chunk_frames:
            first_s = time.perf_counter() - begun
    return Stream(torch.cat(chunks), state, first_s)


def calls_to_first_frame(config: Any) -> int:
    """Calls until the first driving frame leaves."""
    return config.warmup_frames // config.chunk_frames + 1


@torch.no_grad()
def with_keyframes(engine: Engine, state: StreamState, count: int) -> StreamState:
    """The state with so many keyframes, made from frames in flight, and old enough to look for more."""
    state = dataclasses.replace(state, call=max(state.call, engine.config.keyframes.first_call))
    for number in range(count):
        kv = engine.backend.project(state.latents[:, :, number], state.reference.context)
        bank = (*state.bank, HostCopy(state.motion[:, number : number + 1]))
        state = dataclasses.replace(state, reference=extend(state.reference, kv), bank=bank)
    return state


def first_frame_s(engine: Engine, material: Material, repeats: int) -> float:
    """Seconds from a portrait to the first frame that shows the driver's motion, once all is warm."""
    calls = calls_to_first_frame(engine.config)
    return median(stream(engine, material, calls).to_first_driven_s for _ in range(repeats))


@torch.no_grad()
def keyframe_ms(engine: Engine, state: StreamState, repeats: int) -> float:
    """What adding a keyframe costs a call on top."""
    times = []
    for _ in range(repeats):
        settle(engine.device)
        begun = time.perf_counter()
        engine.backend.project(state.latents[:, :, 0], state.reference.context)
        settle(engine.device)
        times.append(1e3 * (time.perf_counter() - begun))
    return median(times)


def ahead_frames_per_s(engine: Engine, state: StreamState, material: Material, calls: int) -> float:
    """Of calls each of which is asked for before the frames of the one before it are waited for, as films do."""
    settle(engine.device)
    begun, coming = time.perf_counter(), None
    for number in range(calls):
        state, following = engine.submit(state, material.windows[number % len(material.windows)])
        if coming is not None:
            coming.wait()
        coming = following
    if coming is not None:
        coming.wait()
    return calls * engine.chunk_frames / (time.perf_counter() - begun)


def agreement(found: Tensor, wanted: Tensor) -> Mapping[str, Any]:
    """How well (N, S, S, 3) uint8 frames agree with others; a PSNR of None is that of equal pictures."""
    difference = found.float() - wanted.float()
    by_frame = difference.square().mean(dim=(1, 2, 3)).double()
    return {
        "psnr_db": psnr_db(float(by_frame.mean())),
        "psnr_worst_frame_db": psnr_db(float(by_frame.max())),
        "largest_difference_levels": int(difference.abs().max()),
    }


def psnr_db(error: float) -> float | None:
    """Of a mean squared error in levels of a byte."""
    return 10 * math.log10(HIGHEST**2 / error) if error else None
