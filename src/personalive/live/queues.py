"""Bounded queues between the event loop and the worker's thread. They keep the newest, never a backlog."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from personalive.live.config import LiveConfig
from personalive.live.frames import DrivingFrame, FinishedFrame

_MESSAGES = 32  # that a listener may be behind


class DrivingQueue:
    """Driving frames that no chunk has used yet. Any thread."""

    def __init__(self, limit: int) -> None:
        self._frames: deque[DrivingFrame] = deque(maxlen=limit)
        self._lock = threading.Lock()
        self._newest_us = -1
        self.received = self.dropped = 0

    def put(self, frame: DrivingFrame) -> None:
        """Add a frame, dropping the oldest where full; a frame older than the newest is dropped itself."""
        with self._lock:
            self.received += 1
            if frame.capture_us < self._newest_us:
                self.dropped += 1
                return
            self._newest_us = frame.capture_us
            self.dropped += len(self._frames) == self._frames.maxlen
            self._frames.append(frame)

    def take(self) -> list[DrivingFrame]:
        """Remove and return all frames, oldest first."""
        with self._lock:
            frames = list(self._frames)
            self._frames.clear()
        return frames

    def restart(self) -> None:
        """Drop all frames and the newest time, for a driver with another clock."""
        with self._lock:
            self._frames.clear()
            self._newest_us = -1

    def __len__(self) -> int:
        return len(self._frames)


class AckWindow:
    """Congestion window: frames sent to one client and not yet acknowledged.

    Frames that a slow client has not read grow old in the network's buffers, so the window begins with two, grows by
    one for every timely acknowledgement, and is back at two after a late one.
    """

    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        self._limit = config.slow_unacknowledged_frames
        self._sent: deque[tuple[int, float]] = deque()  # index and when, oldest first

    @property
    def has_room(self) -> bool:
        """True while one more frame may be sent."""
        return len(self._sent) < self._limit

    def sent(self, index: int, now: float) -> None:
        """Record that a frame was sent."""
        self._sent.append((index, now))

    def acknowledged(self, index: float, now: float) -> None:
        """Record that the client has seen a frame, and so those before it too."""
        while self._sent and self._sent[0][0] <= index:
            _, then = self._sent.popleft()
            late, config = now - then > self._config.acknowledge_s, self._config
            larger = min(self._limit + 1, config.unacknowledged_frames)
            self._limit = config.slow_unacknowledged_frames if late else larger


class Viewer:
    """Finished frames to be sent to one viewer. Filled from the worker's thread, emptied on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._frames = loop, deque[FinishedFrame]()
        self._lock = threading.Lock()
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.closed = False

    def put(self, frames: Sequence[FinishedFrame], limit: int) -> None:
        """Add frames; the newest ``limit`` of all are kept. Any thread."""
        with self._lock:
            self._frames.extend(frames)
            while len(self._frames) > limit:
                self._frames.popleft()
                self.dropped += 1
        self._wake()

    def drop_before(self, generation: int) -> None:
        """Drop all frames of portraits before ``generation``. Any thread."""
        with self._lock:
            kept = [frame for frame in self._frames if frame.header.generation >= generation]
            self._frames.clear()
            self._frames.extend(kept)

    def clear(self) -> None:
        """Drop all frames. Any thread."""
        with self._lock:
            self._frames.clear()

    def close(self) -> None:
        """Let ``get`` return None from now on. Any thread."""
        self.closed = True
        self._wake()

    async def get(self, now: Callable[[], float]) -> FinishedFrame | None:
        """Wait for the next frame and its time to be shown; None after ``close``."""
        while not self.closed:
            with self._lock:
                frame = self._frames[0] if self._frames else None
                if frame is None:
                    self._arrived.clear()
            if frame is None:
                await self._arrived.wait()
                continue
            if (early_s := frame.show_at_s - now()) > 0:
                await self._sleep(early_s)
                continue  # meanwhile it may have been dropped
            with self._lock:
                if self._frames and self._frames[0] is frame:
                    return self._frames.popleft()
        return None

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or until the queue changes."""
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # ``wait_for`` may swallow being cancelled (Python 3.11)
                await self._arrived.wait()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)


class Listener:
    """Text messages to one client. Filled from any thread, emptied on the event loop.

    A newer state or newer stats take the place of older ones.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: deque[Mapping[str, Any]] = deque(maxlen=_MESSAGES)
        self._arrived = asyncio.Event()

    def put(self, message: Mapping[str, Any]) -> None:
        """Add a message. Any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._add, message)

    async def get(self) -> Mapping[str, Any]:
        """Wait for the next message."""
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()

    def _add(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind in ("state", "stats"):
            for old in [old for old in self._messages if old["type"] == kind]:
                self._messages.remove(old)
        self._messages.append(message)
        self._arrived.set()
