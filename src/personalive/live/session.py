"""One client's session: its mailboxes, settings and figures, shared by the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
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
Order = tuple[Callable[[LiveStream], Any], Future]
_KEY_BYTES = 18


class Player(Protocol):
    """Pushes driving frames from a thread of its own."""

    loop: bool  # whether it begins again at the end

    @property
    def driver(self) -> Driver:
        """What it stands for."""
        ...

    def start(self) -> None:
        """From the beginning."""
        ...

    def stop(self) -> None:
        """Waits until no more come."""
        ...

    def discard(self) -> None:
        """Another one has taken its place: what it played from may go."""
        ...


class Session:
    """Made and ended on the event loop. What both threads touch is behind one lock or atomic."""

    def __init__(
        self,
        *,
        folder: Path,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        config: LiveConfig,
        seed: int = 0,
        view_key: str | None = None,
    ) -> None:
        """
        Args:
            folder: for uploads; made by the owner, gone with the session.
            seed: what the controls begin with.
            view_key: None makes a new one.
        """
        self.id, self.key, new_key = (secrets.token_urlsafe(_KEY_BYTES) for _ in range(3))
        self.view_key = view_key or new_key
        self.folder, self.loop, self.clock, self.config = folder, loop, clock, config
        self.inbox = DrivingQueue(config.inbox_frames)
        self.controls = LiveControls(seed=seed)
        self.playing = True
        self.driver: Driver = "camera"
        self.player: Player | None = None  # of the newest clip or template
        self.metrics = SessionMetrics(config)
        self.ended: str | None = None  # why
        self.seen_s = clock()  # when a connection was last there
        self.connections = 0
        self.wake: Callable[[], None] = lambda: None  # set by the worker
        self._changing = asyncio.Lock()  # one driver after another, also where two are asked for at once
        self._lock = threading.Lock()
        self._orders: deque[Order] = deque()
        self._viewers: set[Viewer] = set()
        self._listeners: set[Listener] = set()
        self._shown: dict[str, Any] = {"portrait": False, "generation": 0, "face": None, "recording": False}
        self._message = ""
        self._neutral = False
        self._told_stage = ""

    # --- from the event loop ------------------------------------------------------------------------------

    def push(self, frame: DrivingFrame, driver: Driver) -> None:
        """A driving frame of ``driver``; not taken while another drives or the session is paused."""
        if driver == self.driver and self.playing and self.ended is None:
            self.metrics.camera(frame.received_s)
            self.inbox.put(frame)
            self.wake()

    def restart_camera(self) -> None:
        """A driver's socket sends its first frame: its clock may be another than that of the socket before."""
        if self.driver == "camera":
            self.inbox.restart()

    async def run_on_worker(self, order: Callable[[LiveStream], Any]) -> Any:
        """Run ``order`` on the worker's thread between two chunks and give its result.

        Raises:
            RefusedError: the session has ended.
        """
        future: Future = Future()
        with self._lock:
            if self.ended is not None:
                raise RefusedError("not_found", f"the session has ended: {self.ended}")
            self._orders.append((order, future))
        self.wake()
        return await asyncio.wrap_future(future)

    async def set_controls(self, values: Mapping[str, Any]) -> None:
        """Change some controls; they hold from the next chunk on.

        Raises:
            InputError: an unknown one, a value out of range, or one that the model cannot follow.
        """
        wanted = self.controls.changed(values)
        if any(name in values for name in FACIAL):
            await self.run_on_worker(lambda stream: stream.check(wanted))
        self.controls = self.controls.changed(values)  # others may have changed meanwhile
        self.send_state()

    def set_playing(self, playing: bool) -> None:
        """Pause at once, or go on; what waited is forgotten, so that going on begins with the present."""
        if playing != self.playing:
            with self._lock:
                self.playing = playing
                for viewer in self._viewers:
                    viewer.clear()
            self.inbox.restart()
            self.wake()
            self.send_state()

    async def set_driver(self, driver: Driver, player: Player | None = None) -> None:
        """Let another driver begin, or the same one again from its beginning; what played before stops.

        Args:
            player: of a new clip or template; else the newest one plays.

        Raises:
            RefusedError: a clip or template is wanted, and there is none of the kind.
        """
        async with self._changing:
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
        """The next driving frame becomes neutral."""
        self._neutral = True

    def add_viewer(self) -> Viewer:
        """Someone who wants finished frames; ``remove_viewer`` ends it."""
        viewer = Viewer(self.loop)
        with self._lock:
            self._viewers.add(viewer)
        return viewer

    def remove_viewer(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        viewer.close()
        with self._lock:
            self._viewers.discard(viewer)
            self.metrics.dropped_viewer += viewer.dropped

    def add_listener(self) -> Listener:
        """Someone who wants text messages; begins with the state."""
        listener = Listener(self.loop)
        with self._lock:
            self._listeners.add(listener)
            ended = self.ended
        listener.put(self._state_message())
        if ended is not None:  # while its socket was being opened
            listener.put({"type": "ended", "reason": ended})
        return listener

    def remove_listener(self, listener: Listener) -> None:
        """Forget a listener."""
        with self._lock:
            self._listeners.discard(listener)

    def end(self, reason: str) -> None:
        """No more frames, orders or connections. Any thread; again does nothing."""
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
            viewers, orders = list(self._viewers), list(self._orders)
            self._orders.clear()
        for _, future in orders:
            if future.set_running_or_notify_cancel():  # else whoever asked is gone
                future.set_exception(RefusedError("not_found", f"the session has ended: {reason}"))
        self.send({"type": "ended", "reason": reason})
        for viewer in viewers:
            viewer.close()
        self.inbox.restart()

    # --- from the worker's thread -------------------------------------------------------------------------

    def next_request(self) -> Order | None:
        """What the worker is asked to do, oldest first."""
        with self._lock:
            return self._orders.popleft() if self._orders else None

    @property
    def has_orders(self) -> bool:
        """Whether ``next_request`` would give one."""
        return bool(self._orders)

    def take_neutral(self) -> bool:
        """Whether to recalibrate now; asked once."""
        neutral, self._neutral = self._neutral, False
        return neutral

    def publish(self, frames: Sequence[FinishedFrame], frames_per_s: float) -> None:
        """Hand finished frames to all viewers."""
        limit = self.config.viewer_frames + int(self.controls.delay_ms / 1e3 * frames_per_s)
        with self._lock:
            if not self.playing:
                return  # paused while they were made
            self.metrics.finished(frames)
            for viewer in self._viewers:
                viewer.put(frames, limit)

    def show(self, stream: LiveStream) -> None:
        """Tell what has changed on stage; frames of an older portrait are dropped."""
        shown = {
            "portrait": stream.ready,
            "generation": stream.generation,
            "face": stream.face,
            "recording": stream.recording,
        }
        if shown == self._shown:
            return
        if shown["generation"] != self._shown["generation"]:
            for viewer in self._all_viewers():
                viewer.forget(stream.generation)
        self._shown = shown
        self.send_state()

    def set_message(self, message: str) -> None:
        """Something for the person at the other end, in the state; empty when it is over."""
        if message != self._message:
            self._message = message
            self.send_state()

    def refresh(self) -> None:
        """Tell the state where time alone has changed it: driving frames that stopped coming."""
        if self._stage() != self._told_stage:
            self.send_state()

    # --- both ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """As in docs/protocol.md."""
        return {
            "playing": self.playing,
            "driver": self.driver,
            "stage": self._stage(),
            "controls": asdict(self.controls),
            "message": self._message,
            **self._shown,
        }

    def stats(self, told: Mapping[str, Any], chunk_frames: int, warmup_frames: int) -> None:
        """Tell the figures of the last seconds, beside those that the worker has ``told``."""
        dropped = self.metrics.dropped_viewer + sum(viewer.dropped for viewer in self._all_viewers())
        measured = self.metrics.to_dict(self.clock(), chunk_frames, warmup_frames)
        counts = {"dropped_driving": self.inbox.dropped, "dropped_viewer": dropped}
        self.send({"type": "stats", "stats": {**measured, **counts, **told}})

    def send_state(self) -> None:
        """The state to all listeners."""
        self._told_stage = self._stage()
        self.send(self._state_message())

    def send(self, message: Mapping[str, Any]) -> None:
        """A message to all listeners."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(message)

    def _state_message(self) -> dict[str, Any]:
        return {"type": "state", "state": self.state()}

    def _stage(self) -> str:
        if not self._shown["portrait"]:
            return "empty"
        if not self.playing:
            return "paused"
        return "live" if self.metrics.live(self.clock()) else "waiting"

    def _all_viewers(self) -> list[Viewer]:
        with self._lock:
            return list(self._viewers)
