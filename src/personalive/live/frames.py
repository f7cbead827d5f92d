"""Frames on their way through a live session, with their times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from personalive.engine.state import Motion

Clock = Callable[[], float]  # monotonic seconds


@dataclass(frozen=True, slots=True)
class DrivingFrame:
    """One frame that drives, not yet decoded: most are never needed."""

    sequence: int  # as its sender counts; 0 where nobody asks
    capture_us: int  # by the sender's clock; orders the frames and times them
    received_s: float  # by this machine's monotonic clock
    content: Callable[[], np.ndarray] | Motion  # gives (H, W, 3) uint8 RGB; or one frame of a template


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where a finished frame's time went, milliseconds."""

    queue_ms: float  # from the driving frame's arrival to the call that took it in
    window_ms: float  # from there to the start of the call that finished it
    compute_ms: float  # that call
    pace_ms: float  # from its end until the frame was sent


@dataclass(frozen=True, slots=True)
class FinishedHeader:
    """What precedes the JPEG of a finished frame."""

    sequence: int  # of the driving frame that it shows; 0 for the ease-in
    capture_us: int
    generation: int
    index: int
    times: StageTimes


@dataclass(slots=True, eq=False)
class FinishedFrame:
    """A frame to show. ``show_at_s`` is on the monotonic clock."""

    header: FinishedHeader
    image: np.ndarray  # (S, S, 3) uint8
    done_s: float
    show_at_s: float
    _jpeg: bytes | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def jpeg(self, encode: Callable[[np.ndarray], bytes]) -> bytes:
        """The picture as JPEG, made once for all viewers. Any thread."""
        with self._lock:
            if self._jpeg is None:
                self._jpeg = encode(self.image)
            return self._jpeg
