"""Session of one client: its queues, controls and metrics, shared by the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from personalive.engine.directions import FACIAL
from personalive.live.config import LiveConfig
from personalive.live.controls import LiveControls
from personalive.live.errors import RefusedError
from personalive.live.frames import Clock, DrivingFrame, FinishedFrame
from personalive.live.metrics import SessionMetrics
from personalive.live.queues import DrivingQueue, Listener, Viewer
from personalive.live.stream import LiveStream

Driver = Literal["camera", "clip", "template"]
Request = tuple[Callable[[LiveStream], Any], Future]
_KEY_BYTES = 18


class Player(Protocol):
    """Source that pushes driving frames from a thread of its own (players.py)."""

    loop: bool
    driver: Driver

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def discard(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SavedSession:
    """All of a session but its portrait and driver, to go on with elsewhere."""

    id: str
    key: str
    view_key: str
    controls: dict[str, Any]
    playing: bool
    generation: int  # of its newest portrait
    index: int  # of its next finished frame


class Session:
    """Session that is made and ended on the event loop. State of both threads is atomic or behind one lock."""

    def __init__(
        self,
        *,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        config: LiveConfig,
        controls: LiveControls | None = None,
        view_key: str | None = None,
        saved: SavedSession | None = None,
    ) -> None:
        """
        Args:
            folder: for uploads; made and deleted by the owner.
            controls: to begin with; None: the defaults.
            view_key: None makes a new one.
            saved: of the server that it was on before; None begins a new session.
        """
        id_, key, new_key = (secrets.token_urlsafe(_KEY_BYTES) for _ in range(3))
        saved = saved or SavedSession(
            id=id_, key=key, view_key=view_key or new_key, controls={}, playing=True, generation=0, index=0
        )
        self.id, self.key, self.view_key = saved.id, saved.key, saved.view_key
        self.first_generation, self.index = saved.generation, saved.index
        self.folder, self.loop, self.clock, self.config = folder, loop, clock, config
        self.inbox = DrivingQueue(config.inbox_frames)
        self.controls = controls or LiveControls()
        self.playing = True
        self.driver: Driver = "camera"
        self.player: Player | None = None  # of the newest clip or motion file
        self.metrics = SessionMetrics(config)
        self.ended: str | None = None  # the reason, once it has
        self.seen_s = clock()  # when a client was last connected
        self.connections = 0
        self.wake: Callable[[], None] = lambda: None  # set by the worker
        self._driver_lock = asyncio.Lock()  # drivers are changed one after another
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._viewers: set[Viewer] = set()
        self._listeners: set[Listener] = set()
        self._stream_state: dict[str, Any] = {
            "portrait": False,
            "generation": saved.generation,
            "face": None,
            "recording": False,
        }
        self._message = ""
        self._neutral = False
        self._sent_stage = ""

    # --- from the event loop ------------------------------------------------------------------------------

    def push(self, frame: DrivingFrame, driver: Driver) -> None:
        """Queue a driving frame of ``driver``; it is ignored while another drives or the session is paused."""
        if driver == self.driver and self.playing and self.ended is None:
            self.metrics.add_driving(frame.received_s)
            self.inbox.put(frame)
            self.wake()

    def restart_camera(self) -> None:
        """Begin a new camera connection, whose clock may differ from the last one's."""
        if self.driver == "camera":
            self.inbox.restart()

    async def run_on_worker(self, function: Callable[[LiveStream], Any]) -> Any:
        """Run ``function`` on the worker's thread between two chunks and return its result.

        Raises:
            RefusedError: the session has ended.
        """
        future: Future = Future()
        with self._lock:
            if self.ended is not None:
                raise RefusedError("not_found", f"the session has ended: {self.ended}")
            self._requests.append((function, future))
        self.wake()
        return await asyncio.wrap_future(future)

    async def set_controls(self, values: Mapping[str, Any]) -> None:
        """Change some controls, from the next chunk on.

        Raises:
            InputError: an unknown one, a value out of range, or one that the model cannot follow.
        """
        changed = self.controls.changed(values)
        if any(name in values for name in (*FACIAL, "steps")):
            await self.run_on_worker(lambda stream: stream.check(changed))
        self.controls = self.controls.changed(values)  # others may have changed meanwhile
        self.send_state()

    def set_playing(self, playing: bool) -> None:
        """Pause at once, or resume with the newest frames: those that waited are dropped."""
        if playing != self.playing:
            with self._lock:
                self.playing = playing
                for viewer in self._viewers:
                    viewer.clear()
            self.inbox.restart()
            self.wake()
            self.send_state()

    async def set_driver(self, driver: Driver, player: Player | None = None) -> None:
        """Switch to another driver, or start the same one over; the player before stops.

        Args:
            player: of a new clip or motion file; None starts the newest one.

        Raises:
            RefusedError: no clip or motion file was sent yet.
        """
        async with self._driver_lock:
            player = player or self.player
            if driver != "camera" and (player is None or player.driver != driver):
                raise RefusedError("bad_request", f"no {driver} yet: send one first")
            if self.player is not None:
                await asyncio.to_thread(self.player.stop)
                if player is not self.player:
                    self.player.discard()
            self.driver, self.player = driver, player
            self.inbox.restart()
            await self.run_on_worker(LiveStream.change_driver)
            if player is not None and driver != "camera":
                player.start()
            self.send_state()

    def recalibrate(self) -> None:
        """Take the next driving frame as the neutral one."""
        self._neutral = True

    def add_viewer(self) -> Viewer:
        """Return a queue of the finished frames from now on; ``remove_viewer`` ends it."""
        viewer = Viewer(self.loop)
        with self._lock:
            self._viewers.add(viewer)
        return viewer

    def remove_viewer(self, viewer: Viewer) -> None:
        """Close a viewer's queue."""
        viewer.close()
        with self._lock:
            self._viewers.discard(viewer)
            self.metrics.dropped_viewer += viewer.dropped

    def add_listener(self) -> Listener:
        """Return a queue of the text messages, the state first; ``remove_listener`` ends it."""
        listener = Listener(self.loop)
        with self._lock:
            self._listeners.add(listener)
            ended = self.ended
        listener.put(self._state_message())
        if ended is not None:  # while the client connected
            listener.put({"type": "ended", "reason": ended})
        return listener

    def remove_listener(self, listener: Listener) -> None:
        """Send a listener no more messages."""
        with self._lock:
            self._listeners.discard(listener)

    def end(self, reason: str) -> None:
        """End with its viewers and requests. Any thread; a second call does nothing."""
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
            viewers, requests = list(self._viewers), list(self._requests)
            self._requests.clear()
        for _, future in requests:
            if future.set_running_or_notify_cancel():  # False: the caller was cancelled
                future.set_exception(RefusedError("not_found", f"the session has ended: {reason}"))
        self.send({"type": "ended", "reason": reason})
        for viewer in viewers:
            viewer.close()
        self.inbox.restart()

    # --- from the worker's thread -------------------------------------------------------------------------

    def next_request(self) -> Request | None:
        """Remove and return the oldest call of ``run_on_worker``, and the future of its result; None without one."""
        with self._lock:
            return self._requests.popleft() if self._requests else None

    def take_neutral(self) -> bool:
        """Return True once after ``recalibrate``."""
        neutral, self._neutral = self._neutral, False
        return neutral

    def publish(self, frames: Sequence[FinishedFrame], frames_per_s: float) -> None:
        """Queue finished frames for all viewers."""
        limit = self.config.viewer_frames + int(self.controls.delay_ms / 1e3 * frames_per_s)
        with self._lock:
            if not self.playing:
                return  # paused meanwhile
            self.metrics.add_finished(frames)
            for viewer in self._viewers:
                viewer.put(frames, limit)

    def update(self, stream: LiveStream) -> None:
        """Send the state where the stream's part of it has changed; drop frames of an older portrait."""
        self.index = stream.index
        state = {
            "portrait": stream.ready,
            "generation": stream.generation,
            "face": stream.face,
            "recording": stream.recording,
        }
        if state == self._stream_state:
            return
        if state["generation"] != self._stream_state["generation"]:
            for viewer in self._all_viewers():
                viewer.drop_before(stream.generation)
        self._stream_state = state
        self.send_state()

    def set_message(self, message: str) -> None:
        """Show a message for the user in the state; empty removes it."""
        if message != self._message:
            self._message = message
            self.send_state()

    def refresh(self) -> None:
        """Send the state where time alone has changed it: driving frames stopped coming."""
        if self._stage() != self._sent_stage:
            self.send_state()

    # --- any thread ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state as JSON (docs/protocol.md)."""
        return {
            "playing": self.playing,
            "driver": self.driver,
            "stage": self._stage(),
            "controls": asdict(self.controls),
            "message": self._message,
            **self._stream_state,
        }

    def save(self) -> SavedSession:
        """Return what another server needs to go on with the session."""
        return SavedSession(
            id=self.id,
            key=self.key,
            view_key=self.view_key,
            controls=asdict(self.controls),
            playing=self.playing,
            generation=self._stream_state["generation"],
            index=self.index,
        )

    def send_stats(self, worker_stats: Mapping[str, Any], chunk_frames: int, warmup_frames: int) -> None:
        """Send the metrics of the last seconds, with those of the worker."""
        measured = self.metrics.to_dict(self.clock(), chunk_frames, warmup_frames)
        self.send({"type": "stats", "stats": {**measured, **self.dropped(), **worker_stats}})

    def dropped(self) -> dict[str, int]:
        """Return how many driving frames and frames for viewers were dropped so far."""
        viewers = self.metrics.dropped_viewer + sum(viewer.dropped for viewer in self._all_viewers())
        return {"dropped_driving": self.inbox.dropped, "dropped_viewer": viewers}

    def send_state(self) -> None:
        """Send the state to all listeners."""
        self._sent_stage = self._stage()
        self.send(self._state_message())

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message to all listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(message)

    def _state_message(self) -> dict[str, Any]:
        return {"type": "state", "state": self.state()}

    def _stage(self) -> str:
        if not self._stream_state["portrait"]:
            return "empty"
        if not self.playing:
            return "paused"
        return "live" if self.metrics.live(self.clock()) else "waiting"

    def _all_viewers(self) -> list[Viewer]:
        with self._lock:
            return list(self._viewers)
