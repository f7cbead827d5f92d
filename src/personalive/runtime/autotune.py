"""Choice of the fastest backend: a short measurement, kept for the next time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from personalive.device import device_name
from personalive.engine.engine import Engine
from personalive.engine.state import StreamState
from personalive.errors import PersonaLiveError
from personalive.runtime.cache import ProgramCache, program_key
from personalive.runtime.memory import engine_oom_errors
from personalive.runtime.registry import EAGER, OPENVINO, unavailable

_LOG = logging.getLogger(__name__)
_CHOICE = "backend"


@dataclass(frozen=True, kw_only=True)
class AutotuneConfig:
    """Measuring and choosing backends on a CPU (ours)."""

    prepare_from_frames: int = 600  # shorter videos do not wait for programs that are not there yet (OpenVINO)
    warmup_steps: int = 2  # of each backend, before it is timed
    timed_steps: int = 5  # of each, by turns; the median decides
    max_values: int = 500_000_000  # larger models would take minutes to convert, and stay far from real time


def candidates(device: torch.device, precision: torch.dtype) -> list[str]:
    """Backends worth a measurement here, the surest first. On CUDA that is eager alone: compiling pays late."""
    faster = [OPENVINO] if device.type == "cpu" else []
    return [EAGER, *(name for name in faster if unavailable(name, device, precision) is None)]


def choice_key(
    names: Sequence[str], device: torch.device, precision: torch.dtype, identity: str, threads: int
) -> str:
    """Cache key of a measurement: this model on this device by one of these backends."""
    return program_key(
        "choice",
        "torch",
        *(["openvino"] if OPENVINO in names else []),
        names=list(names),
        model=identity,
        device=device_name(device),
        precision=precision,
        threads=threads,
    )


def choose(
    engines: Mapping[str, Callable[[], Engine]], cache: ProgramCache, key: str, config: AutotuneConfig
) -> tuple[Engine, dict[str, float]]:
    """Open every candidate, time them by turns, keep the fastest.

    A candidate that fails while it is opened or measured is left out, with one line in the log, and the choice among
    the others is kept, so that the next start does not try it again.

    Args:
        engines: opens each candidate; the first must work.
        key: under which the choice is kept.

    Returns:
        The fastest engine, and milliseconds per call of each candidate that worked.
    """
    remembered = str((cache.get(key) or {}).get(_CHOICE))
    if remembered in engines:
        try:
            return engines[remembered](), {}
        except PersonaLiveError as error:  # its programs are gone and cannot be made again
            if remembered == next(iter(engines)):
                raise
            _LOG.warning("the backend chosen earlier cannot be opened: %s", error)
            engines = {name: opening for name, opening in engines.items() if name != remembered}
    opened = _open_all(engines)
    call_ms = _measure(opened, config)
    best = min(call_ms, key=lambda name: call_ms[name])
    cache.put(key, {_CHOICE: best, "call_ms": {name: round(ms, 1) for name, ms in call_ms.items()}})
    return opened[best], call_ms


def _open_all(engines: Mapping[str, Callable[[], Engine]]) -> dict[str, Engine]:
    opened: dict[str, Engine] = {}
    for name, make in engines.items():
        try:
            opened[name] = make()
        except PersonaLiveError as error:
            if not opened:
                raise
            _LOG.warning("backend %s is left out: %s", name, error)
    return opened


def _measure(engines: dict[str, Engine], config: AutotuneConfig) -> dict[str, float]:
    """Median milliseconds per call, by turns; one that fails is left out, but never the first."""
    states: dict[str, StreamState] = {}
    times: dict[str, list[float]] = {name: [] for name in engines}
    surest = next(iter(engines))
    if len(engines) == 1:
        return {surest: 0.0}
    for number in range(config.warmup_steps + config.timed_steps):
        for name in list(times):
            try:
                seconds = _timed_step(engines[name], states, name)
            except (PersonaLiveError, RuntimeError) as error:  # whatever a runtime raises of its own
                if name == surest:
                    raise
                _LOG.warning("backend %s is left out: it failed while it was measured (%s)", name, error)
                del times[name]
                states.pop(name, None)
                continue
            if number >= config.warmup_steps:
                times[name].append(1e3 * seconds)
    return {name: median(found) for name, found in times.items()}


def _timed_step(engine: Engine, states: dict[str, StreamState], name: str) -> float:
    with engine_oom_errors(engine):
        if name not in states:
            states[name] = engine.start(_images(engine, 1)[0])
        window = _images(engine, engine.chunk_frames)
        begun = time.perf_counter()
        states[name], _ = engine.step(states[name], window)  # gives frames on the CPU, so it has ended
        return time.perf_counter() - begun


def _images(engine: Engine, count: int) -> np.ndarray:
    """(count, S, S, 3) uint8; their content costs nothing."""
    side = engine.image_size
    shades = np.linspace(0, 255, side, dtype=np.uint8)
    return np.broadcast_to(shades[None, :, None, None], (count, side, side, 3)).copy()
