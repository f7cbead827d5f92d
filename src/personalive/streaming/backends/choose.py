"""Which backend is the fastest here: a short measurement, kept for the next time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np
import torch

from personalive.checkpoints.programs import ProgramStore, program_key
from personalive.config import BackendConfig
from personalive.errors import PersonaLiveError
from personalive.streaming.backends.machine import device_name
from personalive.streaming.backends.open import COMPILE, EAGER, OPENVINO, TENSORRT, why_not
from personalive.streaming.engine import Engine
from personalive.streaming.state import StreamState

_LOG = logging.getLogger(__name__)


def candidates(device: torch.device, precision: torch.dtype, *, built: bool = False) -> list[str]:
    """Backends worth a measurement here, the surest first; TensorRT where its engines are ``built``."""
    wanted = {"cpu": [OPENVINO], "cuda": [COMPILE, *([TENSORRT] if built else [])]}.get(device.type, [])
    return [EAGER, *(name for name in wanted if why_not(name, device, precision) is None)]


def choice_key(names: Sequence[str], device: torch.device, precision: torch.dtype, identity: str) -> str:
    """What a measurement holds for: this model on this device by one of these backends."""
    packages = {OPENVINO: "openvino", TENSORRT: "onnxruntime"}
    return program_key(
        "choice",
        "torch",
        *(packages[name] for name in names if name in packages),
        names=list(names),
        model=identity,
        device=device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
    )


def choose(
    engines: Mapping[str, Callable[[], Engine]], store: ProgramStore, key: str, config: BackendConfig
) -> tuple[Engine, dict[str, float]]:
    """Open every candidate, time them by turns, keep the fastest; one that cannot be opened is left out, and said.

    Args:
        engines: what opens each candidate; the first must work.
        key: where the choice is kept, if all could be opened.

    Returns:
        The fastest engine, and milliseconds per call of each candidate.
    """
    opened: dict[str, Engine] = {}
    for name, make in engines.items():
        try:
            opened[name] = make()
        except PersonaLiveError as error:
            if not opened:
                raise
            _LOG.warning("left out of the choice: %s", error)
    took = _measured(opened, config) if len(opened) > 1 else dict.fromkeys(opened, 0.0)
    best = min(took, key=lambda name: took[name])
    if len(opened) == len(engines):
        store.remember(key, {"backend": best, "call_ms": {name: round(ms, 1) for name, ms in took.items()}})
    return opened[best], took


def _measured(engines: Mapping[str, Engine], config: BackendConfig) -> dict[str, float]:
    states: dict[str, StreamState] = {}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for name, engine in engines.items():
        states[name] = engine.start(_pictures(engine, 1)[0])
    for number in range(config.warmup_steps + config.timed_steps):
        for name, engine in engines.items():
            window = _pictures(engine, engine.chunk_frames)
            begun = time.perf_counter()
            states[name], _ = engine.step(states[name], window)  # gives pictures on the CPU, so it has ended
            if number >= config.warmup_steps:
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: median(found) for name, found in times.items()}


def _pictures(engine: Engine, count: int) -> np.ndarray:
    """(count, S, S, 3) uint8; what they show costs nothing."""
    side = engine.image_size
    shades = np.linspace(0, 255, side, dtype=np.uint8)
    return np.broadcast_to(shades[None, :, None, None], (count, side, side, 3)).copy()
