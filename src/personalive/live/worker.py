"""The one thread that owns the engine. Sessions take turns on it, a chunk each."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from personalive.config import TINY, WEIGHTS_ENV
from personalive.engine.engine import Engine
from personalive.errors import DeviceError, PersonaLiveError
from personalive.live.config import LiveConfig, WorkerConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock
from personalive.live.session import Session
from personalive.live.stream import LiveStream
from personalive.runtime.load import AUTO, EngineOptions, load_engine
from personalive.runtime.memory import engine_oom_errors

_LOG = logging.getLogger(__name__)
_LOADING = "loading the model"
_WARM_UP_CALLS = 4
_TIMED_CALLS = 40
_IDLE_S = 0.25  # longest sleep without looking around
_BAD_MINUTE_S = 60.0

State = Literal["loading", "ready", "failed", "stopped"]


@dataclass(slots=True, eq=False)
class _Seat:
    """A session on the worker, and when it may be served next."""

    session: Session
    stream: LiveStream
    due_s: float = 0.0  # not before
    begun_s: float = float("-inf")  # of the last chunk
    told_s: float = 0.0  # when the figures were told last
    rate_fps: float | None = None  # frames per second that are aimed at


class Worker:
    """Loads the engine, serves the sessions, and starts again when it dies."""

    def __init__(
        self,
        load: Callable[[Callable[..., None]], Engine],
        *,
        center_fallback: bool = False,
        live: LiveConfig | None = None,
        limits: WorkerConfig | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            load: makes the engine, on the worker's thread; again after the device has failed. Told a function that
                takes the share of the work that is done, 0 to 1, and what is being done unless it is loading.
            center_fallback: see ``LiveStream``.
        """
        self._load, self.center_fallback, self._clock = load, center_fallback, clock
        self._live, self._limits = live or LiveConfig(), limits or WorkerConfig()
        self._news = threading.Event()
        self._seats: deque[_Seat] = deque()
        self._arrivals: deque[Session] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._steps: deque[float] = deque(maxlen=_TIMED_CALLS)
        self._failures: deque[float] = deque()
        self._stopping = False
        self._engine: Engine | None = None
        self.state: State = "loading"
        self.message = _LOADING  # what keeps it from being ready; once it was, its last want of memory
        self.progress: float | None = None  # while it loads: the share that has been read, 0 to 1
        self._thread = self._new_thread()

    # --- from the event loop ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """End after the chunk under way; waits for it."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(self._limits.shutdown_s)
        self.state = "stopped"

    def check(self) -> None:
        """Start again if the thread has died; to be called now and then.

        A worker that keeps dying is left dead, and ``state`` says so.
        """
        if self._thread.is_alive() or self._stopping or self.state in ("failed", "stopped"):
            return
        if self._dies_too_often():
            self.state = "failed"
            self.message = f"the worker failed {len(self._failures)} times within a minute; see the server's log"
            self._end_all(self.message)
            return
        self.state, self.message = "loading", "the worker stopped and is being restarted"
        self.progress = None
        self._engine = None
        for seat in self._seats:
            seat.session.set_message(self.message)
        self._thread = self._new_thread()
        self._thread.start()

    def add_session(self, session: Session) -> None:
        """Serve a session from now on, until it ends."""
        session.wake = self._news.set
        self._arrivals.append(session)
        self._news.set()

    def submit(self, work: Callable[[], Any]) -> Future:
        """Run something on the worker's thread, in turn with the sessions: for films that are made beside them.

        The future is cancelled where the worker has ended.
        """
        future: Future = Future()
        self._calls.append((work, future))
        if self._stopping or self.state in ("failed", "stopped"):
            future.cancel()  # nobody will come for it
        self._news.set()
        return future

    @property
    def engine(self) -> Engine | None:
        """The model, once it is loaded; its numbers may be read from any thread."""
        return self._engine

    @property
    def step_s(self) -> float | None:
        """Median time of a call; None before the first."""
        steps = list(self._steps)
        return median(steps) if steps else None

    @property
    def frames_per_s(self) -> float | None:
        """What the device gives in all."""
        step, engine = self.step_s, self._engine
        return engine.chunk_frames / step if step and engine else None

    @property
    def session_limit(self) -> int:
        """How many sessions would each still get ``WorkerConfig.min_session_fps``, at least one."""
        rate = self.frames_per_s
        if rate is None:
            return 1
        return max(1, min(self._limits.max_sessions, int(rate / self._limits.min_session_fps)))

    # --- on the thread ------------------------------------------------------------------------------------

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="personalive-worker", daemon=True)

    def _run(self) -> None:
        """Until stopped, or until something happens that no session can be blamed for."""
        try:
            self._engine = self._load(self._read)
            with engine_oom_errors(self._engine):
                self._warm_up(self._engine)
            self.state, self.message, self.progress = "ready", "", None
            self._restore_streams()
            while not self._stopping:
                self._news.clear()
                self._admit()
                served = self._serve_one()
                if not (self._answer_call() or served):
                    self._sleep()
            self._end_all("the server is shutting down")
        except PersonaLiveError as error:  # a model that cannot be loaded will not load the next time either
            self.state, self.message = "failed", str(error)
            self._end_all(self.message)
        except Exception as error:  # noqa: BLE001 (whatever it was, ``check`` starts the thread again)
            _LOG.exception("the worker stopped", exc_info=error)

    def _read(self, share: float, what: str = _LOADING) -> None:
        self.progress, self.message = share, what

    def _dies_too_often(self) -> bool:
        """Count a death."""
        now = self._clock()
        self._failures.append(now)
        while now - self._failures[0] > _BAD_MINUTE_S:
            self._failures.popleft()
        return len(self._failures) >= self._limits.failures_before_stop

    def _warm_up(self, engine: Engine) -> None:
        """Times a few calls on a grey portrait, so that the first session's are not the slow ones."""
        grey = np.full((engine.image_size, engine.image_size, 3), 128, np.uint8)
        state = engine.start(grey)
        window = np.stack([grey] * engine.chunk_frames)
        for call in range(_WARM_UP_CALLS):
            begun = self._clock()
            state, _ = engine.step(state, window)
            if call:
                self._steps.append(self._clock() - begun)

    def _admit(self) -> None:
        """Newly arrived sessions get a seat, ended ones lose theirs."""
        while self._arrivals:
            session = self._arrivals.popleft()
            self._seats.append(_Seat(session, self._new_stream(session)))
        for seat in [seat for seat in self._seats if seat.session.ended is not None]:
            self._seats.remove(seat)

    def _new_stream(self, session: Session) -> LiveStream:
        assert self._engine is not None
        return LiveStream(
            self._engine,
            center_fallback=self.center_fallback,
            clock=self._clock,
            config=self._live,
        )

    def _restore_streams(self) -> None:
        """After a restart: every session begins its stream anew, with its portrait."""
        for seat in self._seats:
            before, seat.stream = seat.stream, self._new_stream(seat.session)
            seat.stream.generation, seat.stream.index = before.generation, before.index
            try:
                if before.picture is not None:
                    with self._memory_errors():
                        seat.stream.set_portrait(before.picture, seat.session.controls.seed)
            except PersonaLiveError as error:
                seat.session.end(f"its portrait was lost when the model was restarted ({error})")
                continue
            seat.session.show(seat.stream)
            seat.session.set_message("")

    def _serve_one(self) -> bool:
        """One turn of the session that has waited longest; whether there was anything to do."""
        for _ in range(len(self._seats)):
            seat = self._seats[0]
            self._seats.rotate(-1)
            if seat.session.ended is not None:
                continue
            self._tell(seat)
            if seat.session.has_orders:
                self._run_order(seat)
                return True
            if self._is_due(seat):
                self._make_chunk(seat)
                return True
        return False

    def _answer_call(self) -> bool:
        """One call; whether there was any."""
        if not self._calls:
            return False
        work, future = self._calls.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 (it is the caller's)
                future.set_exception(error)
        return True

    def _run_order(self, seat: _Seat) -> None:
        order = seat.session.next_request()
        if order is None:
            return
        run, future = order
        if not future.set_running_or_notify_cancel():
            return
        try:
            with self._memory_errors():
                result = run(seat.stream)
        except DeviceError as error:
            self.message = str(error)
            future.set_exception(RefusedError("internal", self.message))
        except PersonaLiveError as error:
            future.set_exception(error)
        except Exception as error:  # noqa: BLE001 (one session's fault is not the others')
            future.set_exception(RefusedError("internal", "an unexpected fault; the session goes on as before"))
            self._fail_session(seat, error)
        else:
            seat.session.show(seat.stream)
            future.set_result(result)

    def _is_due(self, seat: _Seat) -> bool:
        session, stream, now = seat.session, seat.stream, self._clock()
        if not (stream.ready and session.playing) or now < seat.due_s:
            return False
        if len(session.inbox):
            return True
        late_s = self._live.late_share * (seat.due_s - seat.begun_s)
        return stream.started and session.metrics.live(now) and now >= seat.begun_s + late_s

    def _make_chunk(self, seat: _Seat) -> None:
        session, stream, begun = seat.session, seat.stream, self._clock()
        camera = session.metrics.camera_fps(begun)
        rate = seat.rate_fps = session.controls.driving_fps or self._live.camera_gain * camera
        try:
            with self._memory_errors():
                frames = stream.step(session.inbox.take(), session.controls, neutral=session.take_neutral())
        except DeviceError as error:  # the next turn would want as much; without this session others have room
            self.message = str(error)
            session.end(self.message)
            return
        except PersonaLiveError as error:
            session.send(RefusedError("unusable_input", str(error)).message())
            return
        except Exception as error:  # noqa: BLE001 (one session's fault is not the others')
            self._fail_session(seat, error)
            return
        self._steps.append(self._clock() - begun)
        seat.begun_s, seat.due_s = begun, begun + len(frames) / rate
        session.publish(frames, rate)
        session.show(stream)

    def _fail_session(self, seat: _Seat, error: Exception) -> None:
        """End the session whose turn failed; if the device does not answer any more, the worker dies too."""
        _LOG.exception("a session failed", exc_info=error)
        seat.session.end("an unexpected fault of the server; start again")
        assert self._engine is not None
        torch.zeros(1, device=self._engine.device).add(1).item()  # raises where the device is lost

    def _memory_errors(self) -> AbstractContextManager[None]:
        assert self._engine is not None
        return engine_oom_errors(self._engine)

    def _tell(self, seat: _Seat) -> None:
        now, engine = self._clock(), self._engine
        if engine is not None and now - seat.told_s >= self._live.stats_interval_s:
            seat.told_s = now
            told = {
                "keyframes": seat.stream.keyframes,
                "step_ms": None if self.step_s is None else round(1e3 * self.step_s, 1),
                "driving_fps": None if seat.rate_fps is None else round(seat.rate_fps, 2),
            }
            seat.session.stats(told, engine.chunk_frames, engine.warmup_frames)
            seat.session.refresh()

    def _sleep(self) -> None:
        now = self._clock()
        waits = [seat.due_s - now for seat in self._seats if seat.session.playing and seat.due_s > now]
        self._news.wait(min([_IDLE_S, *waits]))

    def _end_all(self, reason: str) -> None:
        while self._arrivals:
            self._arrivals.popleft().end(reason)
        for seat in self._seats:
            seat.session.end(reason)
        while self._calls:
            self._calls.popleft()[1].cancel()


def make_worker(weights: str, model: EngineOptions, *, limits: WorkerConfig | None = None) -> Worker:
    """Worker that will load the model of these names, as ``load_engine`` takes them."""
    chosen = os.environ.get(WEIGHTS_ENV, AUTO) if weights == AUTO else weights

    def load(on_progress: Callable[..., None]) -> Engine:
        engine = load_engine(
            chosen,
            **model,
            progress=lambda done, total: on_progress(done / total),
            preparing=lambda name, share: on_progress(share, f"preparing {name} for this model, once"),
        )
        if engine.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # one core for images and connections
        return engine

    return Worker(load, center_fallback=chosen == TINY, limits=limits)
