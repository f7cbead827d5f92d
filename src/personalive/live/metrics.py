"""Rates and latencies of one session."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from personalive.live.config import LiveConfig
from personalive.live.frames import FinishedFrame, StageTimes

_RATE_WINDOW_S, _SHORTEST_S = 5.0, 0.2


class Rate:
    """Rate of events over the last seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=512)

    def add(self, now: float, count: int = 1) -> None:
        """Record ``count`` events now."""
        self._times.extend([now] * count)

    def per_s(self, now: float) -> float:
        """Return events per second; 0 without any lately. The first ones only start the clock."""
        recent = [time for time in self._times if now - time <= _RATE_WINDOW_S]
        if not recent:
            return 0.0
        return sum(time > recent[0] for time in recent) / max(now - recent[0], _SHORTEST_S)


class SessionMetrics:
    """Metrics of one session. Any thread."""

    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._camera, self._finished = Rate(), Rate()
        self._samples: deque[StageTimes] = deque(maxlen=config.latency_samples)
        self._newest_s = float("-inf")  # when the last driving frame came
        self.finished = 0  # frames made
        self.dropped_viewer = 0  # of viewers that are gone

    def add_driving(self, received_s: float) -> None:
        """Record a driving frame."""
        with self._lock:
            self._camera.add(received_s)
            self._newest_s = received_s

    def camera_fps(self, now: float) -> float:
        """Return the driver's measured frame rate; an assumed one where too little is known."""
        with self._lock:
            return self._camera.per_s(now) or self._config.assumed_camera_fps

    def live(self, now: float) -> bool:
        """Return True while driving frames come."""
        return now - self._newest_s < self._config.silent_s

    def add_finished(self, frames: Sequence[FinishedFrame]) -> None:
        """Record a chunk."""
        with self._lock:
            self.finished += len(frames)
            self._finished.add(frames[-1].done_s, len(frames))
            self._samples.extend(frame.header.times for frame in frames if frame.header.times.of_driver)

    def recent(self, now: float) -> tuple[float, list[StageTimes]]:
        """Return frames made per second, and the times of the last ones."""
        with self._lock:
            return self._finished.per_s(now), list(self._samples)

    def to_dict(self, now: float, chunk_frames: int, warmup_frames: int) -> dict[str, Any]:
        """Return the metrics as JSON (docs/protocol.md)."""
        made, samples = self.recent(now)
        with self._lock:
            camera = self._camera.per_s(now)
        latency = {
            stage: {"p50": _rounded(low), "p95": _rounded(high)}
            for stage, (low, high) in percentiles(samples).items()
        }
        floor = 1e3 * (warmup_frames + chunk_frames - 1) / made if made else None
        return {
            "frames_per_s": round(made, 2),
            "camera_fps": round(camera, 2),
            "floor_ms": _rounded(floor),
            "latency_ms": latency,
        }


def percentiles(samples: Sequence[StageTimes]) -> dict[str, tuple[float | None, float | None]]:
    """Median and 95th percentile of each stage, in milliseconds; None without samples."""
    found = {}
    for field in fields(StageTimes):
        values = [getattr(sample, field.name) for sample in samples]
        found[field.name.removesuffix("_ms")] = tuple(np.percentile(values, (50, 95))) if values else (None, None)
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 1)
