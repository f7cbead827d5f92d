"""Worker: the one thread that owns the engine. It serves the sessions, and is restarted when it dies."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

import numpy as np
import torch

from personalive.config import TINY, WEIGHTS_ENV
from personalive.engine.base import BaseEngine
from personalive.errors import PersonaLiveError
from personalive.live.config import LiveConfig, WorkerConfig
from personalive.live.frames import Clock
from personalive.live.scheduler import Scheduler
from personalive.live.session import Session
from personalive.live.stream import frame_live_portrait
from personalive.runtime.live import choose_live_steps, live_decoder
from personalive.runtime.load import AUTO, EngineOptions, load_engine_at_once, weights_name
from personalive.vision.faces import FaceDetector, find_detector
from personalive.vision.framing import Framed

_LOG = logging.getLogger(__name__)
_LOADING = "loading the model"
_FAILURES_WITHIN_S = 60.0

State = Literal["loading", "ready", "failed", "stopped"]


class Worker:
    """Thread that loads the engine and serves the sessions."""

    def __init__(
        self,
        load: Callable[[Callable[..., None]], BaseEngine],
        *,
        center_fallback: bool = False,
        live: LiveConfig | None = None,
        limits: WorkerConfig | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """
        Args:
            load: makes the engine, on the worker's thread; again after the device has failed. Its argument is to be
                called with the progress, 0 to 1, and the name of the work unless it is loading.
            center_fallback: see ``LiveStream``.
        """
        self._load, self.center_fallback, self._clock = load, center_fallback, clock
        self._limits = limits or WorkerConfig()
        self._wake = threading.Event()
        self._scheduler = Scheduler(
            live or LiveConfig(), clock, center_fallback=center_fallback, on_oom=self._set_message
        )
        self._tasks: deque[tuple[Callable[[], Any], Future]] = deque()
        self._failures_s: deque[float] = deque()
        self._stopping = False
        self._engine: BaseEngine | None = None
        self._faster: BaseEngine | None = None  # to change to
        self._serving = threading.Event()
        self._framing = threading.Lock()
        self._detector: FaceDetector | None = None  # of portraits; loading it takes as long as using it
        self.state: State = "loading"
        self.message = _LOADING  # why it is not ready; while it is, the last lack of memory
        self.progress: float | None = None  # of loading, 0 to 1
        self._thread = self._new_thread()

    # --- from the event loop ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """End after the chunk under way; waits for it."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._limits.shutdown_s)
        self.state = "stopped"

    def check(self) -> None:
        """Restart the thread if it has died; to be called regularly. One that keeps dying is left ("failed")."""
        if self._thread.is_alive() or self._stopping or self.state in ("failed", "stopped"):
            return
        if self._fails_too_often():
            self._fail(f"the worker failed {len(self._failures_s)} times within a minute; see the server's log")
            return
        self.state, self.message = "loading", "the worker stopped and is being restarted"
        self.progress = self._engine = None
        self._scheduler.set_message(self.message)
        self._thread = self._new_thread()
        self._thread.start()

    def prepare(self, make: Callable[[], BaseEngine]) -> None:
        """Make another engine beside the one that serves, and change to it when it is there.

        It is begun when the worker serves. Sessions begin anew with their portraits after the change. Where it cannot
        be made, the worker goes on as it is.
        """

        def run() -> None:
            self._serving.wait()
            self._prepare(make)

        threading.Thread(target=run, name="personalive-prepare", daemon=True).start()

    def add_session(self, session: Session) -> None:
        """Serve a session until it ends."""
        session.wake = self._wake.set
        self._scheduler.add(session)
        self._wake.set()

    def submit(self, work: Callable[[], Any]) -> Future:
        """Run a function on the worker's thread, in turn with the sessions.

        The future is cancelled where the worker has ended.
        """
        future: Future = Future()
        self._tasks.append((work, future))
        if self._stopping or self.state in ("failed", "stopped"):
            future.cancel()
        self._wake.set()
        return future

    @property
    def engine(self) -> BaseEngine | None:
        """The model, once it is loaded; its attributes may be read from any thread."""
        return self._engine

    def frame_portrait(self, image: np.ndarray) -> Framed | None:
        """Crop a portrait before a session's turn comes, so that it takes none of the others' time. Any thread.

        One after the other: many at once, as after the loss of a replica, would hold up the streams.

        Returns:
            None before the model is loaded.

        Raises:
            InputError: no face in it, or not a usable image.
        """
        if (engine := self._engine) is None:
            return None
        with self._framing:
            self._detector = self._detector or find_detector(engine.folder)
            return frame_live_portrait(engine, image, self._detector, center_fallback=self.center_fallback)

    @property
    def step_s(self) -> float | None:
        """Median time of a call; None before the first."""
        return self._scheduler.step_s

    @property
    def frames_per_s(self) -> float | None:
        """Frames per second that all sessions share; None before the first call."""
        step, engine = self.step_s, self._engine
        return engine.chunk_frames / step if step and engine else None

    @property
    def session_limit(self) -> int:
        """Number of sessions that would each still get ``WorkerConfig.min_session_fps``; at least one."""
        rate = self.frames_per_s
        if rate is None:
            return 1
        return max(1, min(self._limits.max_sessions, int(rate / self._limits.min_session_fps)))

    # --- on the thread ------------------------------------------------------------------------------------

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name="personalive-worker", daemon=True)

    def _run(self) -> None:
        """Load and serve until stopped, or until an error that is no single session's."""
        try:
            self._engine = engine = self._load(self._set_progress)
            self._scheduler.begin(engine)
            self.state, self.message, self.progress = "ready", "", None
            self._serving.set()
            while not self._stopping:
                self._wake.clear()
                self._change_engine()
                served = self._scheduler.run_next()
                if not (self._run_task() or served):
                    self._wake.wait(self._scheduler.wait_s())
            self._end_all("the server is shutting down")
        except PersonaLiveError as error:  # a model that cannot be loaded will not load the next time either
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 (whatever it was, ``check`` restarts the thread)
            _LOG.exception("the worker stopped", exc_info=error)

    def _prepare(self, make: Callable[[], BaseEngine]) -> None:
        try:
            self._faster = make()
        except Exception as error:  # noqa: BLE001 (whatever it was, the engine that serves goes on)
            _LOG.warning("no faster backend could be prepared, the server goes on as it is: %s", error)
        self._wake.set()

    def _change_engine(self) -> None:
        """Change to an engine that was prepared meanwhile, unless it is of the same backend or motion is recorded."""
        before, faster = self._engine, self._faster
        if before is None or faster is None or self._scheduler.recording:
            return
        self._faster = None
        if faster.facts["backend"] == before.facts["backend"]:
            before.live_steps = faster.live_steps
            return
        try:
            self._scheduler.begin(faster)
        except PersonaLiveError as error:
            _LOG.warning("the prepared backend cannot serve, the server goes on without it: %s", error)
            self._scheduler.begin(before)
        else:
            self._engine = faster

    def _run_task(self) -> bool:
        """Run one submitted function; False where there is none."""
        if not self._tasks:
            return False
        work, future = self._tasks.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 (it is the caller's)
                future.set_exception(error)
        return True

    def _set_progress(self, share: float, message: str = _LOADING) -> None:
        self.progress, self.message = share, message

    def _set_message(self, message: str) -> None:
        self.message = message

    def _fails_too_often(self) -> bool:
        """Count a failure; True where there were too many of late."""
        now = self._clock()
        self._failures_s.append(now)
        while now - self._failures_s[0] > _FAILURES_WITHIN_S:
            self._failures_s.popleft()
        return len(self._failures_s) >= self._limits.failures_before_stop

    def _fail(self, message: str) -> None:
        self.state, self.message = "failed", message
        self._end_all(message)

    def _end_all(self, reason: str) -> None:
        self._scheduler.end_all(reason)
        while self._tasks:
            self._tasks.popleft()[1].cancel()


def make_worker(
    weights: str,
    model: EngineOptions,
    *,
    steps: int | None = None,
    limits: WorkerConfig | None = None,
    threads: int | None = None,
) -> Worker:
    """Return a worker that will load this model; for the arguments see ``load_engine``.

    Args:
        steps: that the model must have; it is not ready without. None: chosen here, on a CPU by measurement.
        threads: of torch on a CPU; None: one less than the machine has cores.
    """
    chosen = os.environ.get(WEIGHTS_ENV, AUTO) if weights == AUTO else weights

    def load(on_progress: Callable[..., None]) -> BaseEngine:
        def on_prepare(name: str, share: float) -> None:
            if worker.state == "loading":
                on_progress(share, f"preparing {name} for this model, once")

        name = weights_name(chosen)
        options: EngineOptions = {**model, "decoder": model.get("decoder") or live_decoder(name)}
        engine, later = load_engine_at_once(
            name, **options, progress=lambda done, total: on_progress(done / total), preparing=on_prepare
        )
        engine.check_steps(steps)
        if engine.device.type == "cpu":
            torch.set_num_threads(threads or max(1, (os.cpu_count() or 2) - 1))  # one for images and connections
        # Videos leave it off: which of cuDNN's algorithms is the fastest may differ from one start to the next.
        torch.backends.cudnn.benchmark = engine.device.type == "cuda"
        if later is not None:
            worker.prepare(lambda: settled(later()))
            return engine
        return settled(engine)

    def settled(engine: BaseEngine) -> BaseEngine:
        if steps is None:
            engine.live_steps = choose_live_steps(engine)
        return engine

    worker = Worker(load, center_fallback=chosen == TINY, limits=limits)
    return worker
