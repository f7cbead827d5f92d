"""Frames of a live session, with their times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from personalive.engine.state import Motion

Clock = Callable[[], float]  # monotonic seconds


@dataclass(frozen=True, slots=True)
class DrivingFrame:
    """Driving frame, not yet decoded: many are never needed."""

    sequence: int  # the sender's number; 0 for clips and motion files
    capture_us: int  # by the sender's clock; orders the frames and times them
    received_s: float  # by this machine's monotonic clock
    content: Callable[[], np.ndarray] | Motion  # returns (H, W, 3) uint8 RGB; or one frame of a motion file


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Latency of a finished frame by stage, milliseconds."""

    queue_ms: float  # from the driving frame's arrival to the call that it entered in
    window_ms: float  # from there to the start of the call that finished it
    compute_ms: float  # of that call
    pace_ms: float  # from its end until the frame is sent

    @property
    def of_driver(self) -> bool:
        """False for the ease-in, which comes from no driving frame. (The window is 0 where one frame is a chunk.)"""
        return self.queue_ms > 0


@dataclass(frozen=True, slots=True)
class FinishedHeader:
    """Header of a finished frame."""

    sequence: int  # of the driving frame that it shows; 0 for the ease-in
    capture_us: int
    generation: int
    index: int
    times: StageTimes


@dataclass(slots=True, eq=False)
class FinishedFrame:
    """Frame to show. ``show_at_s`` is on the monotonic clock."""

    header: FinishedHeader
    image: np.ndarray  # (H, W, 3) uint8, both even
    done_s: float
    show_at_s: float
    _jpeg: bytes | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def jpeg(self, encode: Callable[[np.ndarray], bytes]) -> bytes:
        """Return the image as JPEG, encoded once for all viewers. Any thread."""
        with self._lock:
            if self._jpeg is None:
                self._jpeg = encode(self.image)
            return self._jpeg
