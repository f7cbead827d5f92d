"""Clips and templates that drive a session as a camera would: frames at their times, from a thread of their own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from personalive.engine.state import Motion
from personalive.errors import InputError, PersonaLiveError
from personalive.live.config import LiveConfig
from personalive.live.errors import RefusedError
from personalive.live.frames import DrivingFrame
from personalive.live.session import Driver, Session
from personalive.media import open_video
from personalive.offline.motion_file import MotionClip
from personalive.vision.resize import shrink_to

Content = Callable[[], np.ndarray] | Motion
_SHORTEST_ROUND_S = 0.04  # of a clip that says it lasts no time at all
_PAUSED_S = 0.1  # how often a paused clip looks whether it may go on


class _Player(ABC):
    """Plays until stopped, the session ends, or what it plays does. Where the session is paused it waits."""

    driver: Driver

    def __init__(self, session: Session, *, loop: bool) -> None:
        self.loop = loop
        self._session = session
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._played_s = 0.0  # of all rounds: the driver's clock goes on from round to round

    def start(self) -> None:
        """Play from the beginning."""
        self.stop()
        self._stop.clear()
        self._played_s = 0.0
        self._thread = threading.Thread(target=self._run, name="personalive-player", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more frames."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @abstractmethod
    def discard(self) -> None:
        """Another one has taken its place: what it played from may go."""

    @abstractmethod
    def _round(self) -> Iterator[tuple[float, float, Content]]:
        """Time, duration and content of each frame, from the beginning."""

    def _run(self) -> None:
        try:
            while self._play_once() and self.loop:
                pass
        except PersonaLiveError as error:
            self._session.send(RefusedError("unusable_input", f"the {self.driver}: {error}").message())

    def _play_once(self) -> bool:
        """One round; whether to go on."""
        session, clock = self._session, self._session.clock
        begun, first, end = clock(), self._played_s, 0.0
        for time_s, duration_s, content in self._round():
            while not session.playing and self._going():
                self._stop.wait(_PAUSED_S)
                begun = clock() - time_s
            self._stop.wait(max(begun + time_s - clock(), 0.0))
            if not self._going():
                return False
            session.push(DrivingFrame(0, int(1e6 * (first + time_s)), clock(), content), self.driver)
            end = time_s + duration_s
        end = max(end, _SHORTEST_ROUND_S)
        self._stop.wait(max(begun + end - clock(), 0.0))
        self._played_s = first + end
        return self._going()

    def _going(self) -> bool:
        return not self._stop.is_set() and self._session.ended is None


class ClipPlayer(_Player):
    """Plays a video."""

    driver: Driver = "clip"

    def __init__(self, path: Path, session: Session, *, loop: bool) -> None:
        """
        Raises:
            InputError: not a video that can be read.
        """
        super().__init__(session, loop=loop)
        self._path = path
        with open_video(path) as reader:
            info = reader.info
        self.fps = round(float(info.average_fps), 3)
        self.duration_s = None if info.duration_s is None else round(float(info.duration_s), 3)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    def _round(self) -> Iterator[tuple[float, float, Content]]:
        try:
            with open_video(self._path) as reader:
                for frame in reader:
                    image = shrink_to(frame.image, LiveConfig.clip_side_px)
                    yield float(frame.time), float(frame.duration), lambda image=image: image
        except InputError as error:
            raise InputError(str(error).replace(f"{self._path}: ", "")) from None  # our paths are nobody's business


class MotionPlayer(_Player):
    """Plays the motion of a performance."""

    driver: Driver = "template"

    def __init__(self, template: MotionClip, session: Session, *, loop: bool) -> None:
        super().__init__(session, loop=loop)
        self._template = template
        self.fps, self.duration_s = round(float(template.fps), 3), round(template.duration_s, 3)

    def discard(self) -> None:
        """It lies in memory alone."""

    def _round(self) -> Iterator[tuple[float, float, Content]]:
        template = self._template
        ends = [*template.times_s[1:], template.duration_s]
        for place, (time_s, end_s) in enumerate(zip(template.times_s, ends, strict=True)):
            yield float(time_s), float(end_s - time_s), template.motion[place : place + 1]
