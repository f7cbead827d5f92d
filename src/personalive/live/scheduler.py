"""Sessions that share one engine: each gets a chunk in turn, when it is due."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from personalive.engine.base import BaseEngine
from personalive.errors import DeviceError, PersonaLiveError
from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.session import Session
from personalive.live.stream import LiveStream
from personalive.runtime.memory import engine_oom_errors
from personalive.vision.faces import FaceDetector, find_detector

_LOG = logging.getLogger(__name__)
_WARM_UP_CALLS = 4
_TIMED_CALLS = 40
_IDLE_S = 0.25  # longest wait without looking for work


@dataclass(slots=True, eq=False)
class _Slot:
    """Session on the worker, and when it may be served next."""

    session: Session
    stream: LiveStream
    due_s: float = 0.0  # earliest start of the next chunk
    started_s: float = float("-inf")  # of the last chunk
    stats_s: float = 0.0  # when stats were sent last
    rate_fps: float | None = None  # target, frames per second

    def is_due(self, now: float, config: LiveConfig) -> bool:
        """Return True where a chunk should be made now: new driving frames came, or have been missing for long."""
        session, stream = self.session, self.stream
        if not (stream.ready and session.playing) or now < self.due_s:
            return False
        if len(session.inbox):
            return True
        late_s = config.late_share * (self.due_s - self.started_s)
        return stream.started and session.metrics.live(now) and now >= self.started_s + late_s


class Scheduler:
    """Queue of sessions. For the worker's thread, but for ``add``."""

    def __init__(
        self, config: LiveConfig, clock: Clock, *, center_fallback: bool, on_oom: Callable[[str], None]
    ) -> None:
        """
        Args:
            center_fallback: see ``LiveStream``.
            on_oom: called with the message when a session runs out of device memory.
        """
        self._config, self._clock = config, clock
        self._fallback, self._on_oom = center_fallback, on_oom
        self._engine: BaseEngine | None = None
        self._detector: FaceDetector | None = None  # of all streams: to load one takes 20 ms
        self._slots: deque[_Slot] = deque()
        self._added: deque[Session] = deque()  # not yet in a slot
        self._step_times_s: deque[float] = deque(maxlen=_TIMED_CALLS)
        self._cold_steps: deque[int] = deque()  # numbers of denoising steps whose first call is still slow

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, session: Session) -> None:
        """Serve a session until it ends. Any thread."""
        self._added.append(session)

    @property
    def recording(self) -> bool:
        """True while a session's motion is recorded."""
        return any(slot.stream.recording for slot in self._slots)

    @property
    def step_s(self) -> float | None:
        """Median time of a call; None before the first."""
        times = list(self._step_times_s)
        return median(times) if times else None

    def begin(self, engine: BaseEngine) -> None:
        """Warm ``engine`` up and serve with it; sessions of an engine before begin anew with their portraits.

        Only the denoising steps that sessions begin with are warm then; the others follow while nobody is there.
        """
        self._engine, self._detector = engine, find_detector(engine.folder)
        self._step_times_s.clear()
        with self._oom_errors():
            self._step_times_s.extend(engine.warm_up(_WARM_UP_CALLS, self._clock))
        warm = engine.live_steps or engine.max_steps
        self._cold_steps = deque(steps for steps in range(1, engine.max_steps + 1) if steps != warm)
        for slot in self._slots:
            self._restore(slot)

    def run_next(self) -> bool:
        """Serve the session that has waited longest; False where none needs anything."""
        self._admit()
        for _ in range(len(self._slots)):
            slot = self._slots[0]
            self._slots.rotate(-1)
            if slot.session.ended is not None:
                continue
            self._send_stats(slot)
            if (request := slot.session.next_request()) is not None:
                self._run_request(slot, *request)
                return True
            if slot.is_due(self._clock(), self._config):
                self._make_chunk(slot)
                return True
        return not self._slots and self._warm_next()

    def wait_s(self) -> float:
        """Longest time to sleep while no one asks for anything."""
        now = self._clock()
        return min(
            [_IDLE_S, *(slot.due_s - now for slot in self._slots if slot.session.playing and slot.due_s > now)]
        )

    def set_message(self, message: str) -> None:
        """Show a message in the state of all sessions."""
        for slot in self._slots:
            slot.session.set_message(message)

    def end_all(self, reason: str) -> None:
        """End all sessions."""
        while self._added:
            self._added.popleft().end(reason)
        for slot in self._slots:
            slot.session.end(reason)

    def _admit(self) -> None:
        """Give new sessions a slot, and take it from those that have ended."""
        while self._added:
            session, stream = self._added.popleft(), self._new_stream()
            stream.generation, stream.index = session.first_generation, session.index
            self._slots.append(_Slot(session, stream))
        for slot in [slot for slot in self._slots if slot.session.ended is not None]:
            self._slots.remove(slot)

    def _new_stream(self) -> LiveStream:
        assert self._engine is not None
        return LiveStream(
            self._engine,
            center_fallback=self._fallback,
            clock=self._clock,
            config=self._config,
            detector=self._detector,
        )

    def _restore(self, slot: _Slot) -> None:
        """Begin a session's stream anew with this engine, with its portrait."""
        before, slot.stream = slot.stream, self._new_stream()
        slot.stream.continue_from(before)
        try:
            if before.image is not None:
                with self._oom_errors():
                    slot.stream.set_portrait(before.image, slot.session.controls)
        except PersonaLiveError as error:
            slot.session.end(f"its portrait was lost when the model was restarted ({error})")
            return
        slot.session.update(slot.stream)
        slot.session.set_message("")

    def _run_request(self, slot: _Slot, run: Callable[[LiveStream], Any], future: Future) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            with self._oom_errors():
                result = run(slot.stream)
        except DeviceError as error:
            self._on_oom(str(error))
            future.set_exception(RefusedError("internal", str(error)))
        except PersonaLiveError as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 (one session's fault is not the others')
            future.set_exception(RefusedError("internal", "an unexpected fault; the session goes on as before"))
            self._fail_session(slot, error)
        else:
            slot.session.update(slot.stream)
            future.set_result(result)

    def _make_chunk(self, slot: _Slot) -> None:
        session, stream, started = slot.session, slot.stream, self._clock()
        camera_fps = session.metrics.camera_fps(started)
        rate = slot.rate_fps = session.controls.driving_fps or self._config.camera_gain * camera_fps
        try:
            with self._oom_errors():
                frames = stream.step(session.inbox.take(), session.controls, neutral=session.take_neutral())
        except DeviceError as error:  # its next chunk would need as much; without this session others have room
            self._on_oom(str(error))
            session.end(str(error))
        except PersonaLiveError as error:
            session.send(RefusedError("unusable_input", str(error)).message())
        except Exception as error:  # noqa: BLE001 (one session's fault is not the others')
            self._fail_session(slot, error)
        else:
            self._step_times_s.append(self._clock() - started)
            slot.started_s, slot.due_s = started, started + len(frames) / rate
            session.publish(frames, rate)
            session.update(stream)

    def _fail_session(self, slot: _Slot, error: Exception) -> None:
        """End a session after an unexpected error; raise where the device does not respond any more."""
        _LOG.exception("a session failed", exc_info=error, extra={"session": slot.session.id})
        slot.session.end("an unexpected fault of the server; start again")
        assert self._engine is not None
        torch.zeros(1, device=self._engine.device).add(1).item()

    def _warm_next(self) -> bool:
        if self._engine is None or not self._cold_steps:
            return False
        try:
            with self._oom_errors():
                self._engine.warm_up(1, self._clock, steps=self._cold_steps.popleft())
        except DeviceError:  # a session that wants so many is told
            self._cold_steps.clear()
        return True

    def _oom_errors(self) -> AbstractContextManager[None]:
        assert self._engine is not None
        return engine_oom_errors(self._engine)

    def _send_stats(self, slot: _Slot) -> None:
        now, engine, step_s = self._clock(), self._engine, self.step_s
        if engine is None or now - slot.stats_s < self._config.stats_interval_s:
            return
        slot.stats_s = now
        stats = {
            "keyframes": slot.stream.keyframes,
            "step_ms": None if step_s is None else round(1e3 * step_s, 1),
            "driving_fps": None if slot.rate_fps is None else round(slot.rate_fps, 2),
        }
        slot.session.send_stats(stats, engine.chunk_frames, slot.stream.warmup_frames)
        slot.session.refresh()
