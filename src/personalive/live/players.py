"""Players of clips and motion files, which drive a session as a camera would: each frame at its time."""

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
from personalive.media.isolated import open_isolated_video
from personalive.media.reader import VideoReader
from personalive.offline.motion_file import MotionClip
from personalive.vision.resize import shrink_to

Content = Callable[[], np.ndarray] | Motion
_SHORTEST_LOOP_S = 0.04  # for clips whose duration is zero
_PAUSED_S = 0.1  # between two looks at a paused session


class _Player(ABC):
    """Thread that plays until stopped, or the session or what it plays ends; it waits while the session is paused."""

    driver: Driver

    def __init__(self, session: Session, *, loop: bool) -> None:
        self.loop = loop  # start over at the end
        self._session = session
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._played_s = 0.0  # of all loops: the driver's clock goes on

    def start(self) -> None:
        """Play from the beginning."""
        self.stop()
        self._stop.clear()
        self._played_s = 0.0
        self._thread = threading.Thread(target=self._run, name="personalive-player", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until no more frames come."""
        self._stop.set()
        if self._thread is not None:
            self._interrupt()
            self._thread.join()
            self._thread = None

    @abstractmethod
    def discard(self) -> None:
        """Delete the file that it plays, where it has one."""

    @abstractmethod
    def _frames(self) -> Iterator[tuple[float, float, Content]]:
        """Yield time, duration and content of each frame, from the beginning."""

    def _run(self) -> None:
        try:
            while self._play_once() and self.loop:
                pass
        except PersonaLiveError as error:
            if self._active():
                self._session.send(RefusedError("unusable_input", f"the {self.driver}: {error}").message())
        finally:
            self._close()

    def _interrupt(self) -> None:  # noqa: B027 (most have nothing to do)
        """Let what the thread waits for end soon; called from another thread."""

    def _close(self) -> None:  # noqa: B027
        """Let go of what is played; called at the end of the thread."""

    def _play_once(self) -> bool:
        """Play all frames once; return False if stopped meanwhile."""
        session, clock = self._session, self._session.clock
        started, first, end = clock(), self._played_s, 0.0
        for time_s, duration_s, content in self._frames():
            while not session.playing and self._active():
                self._stop.wait(_PAUSED_S)
                started = clock() - time_s
            self._stop.wait(max(started + time_s - clock(), 0.0))
            if not self._active():
                return False
            session.push(DrivingFrame(0, int(1e6 * (first + time_s)), clock(), content), self.driver)
            end = time_s + duration_s
        end = max(end, _SHORTEST_LOOP_S)
        self._stop.wait(max(started + end - clock(), 0.0))
        self._played_s = first + end
        return self._active()

    def _active(self) -> bool:
        return not self._stop.is_set() and self._session.ended is None


class ClipPlayer(_Player):
    """Player of a video."""

    driver: Driver = "clip"

    def __init__(self, path: Path, session: Session, *, loop: bool) -> None:
        """
        Raises:
            InputError: the video cannot be read.
        """
        super().__init__(session, loop=loop)
        self._path = path
        self._reader: VideoReader | None = open_isolated_video(path)  # the same for all loops
        self._begun = False
        info = self._reader.info
        self.fps = round(float(info.average_fps), 3)
        self.duration_s = None if info.duration_s is None else round(float(info.duration_s), 3)

    def discard(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)

    def _frames(self) -> Iterator[tuple[float, float, Content]]:
        try:
            for frame in self._opened():
                image = shrink_to(frame.image, LiveConfig.clip_side_px)
                yield float(frame.time), float(frame.duration), lambda image=image: image
        except InputError as error:
            # Clients do not see the server's paths.
            raise InputError(str(error).replace(f"{self._path}: ", "").replace(self._path.name, "FILE")) from None

    def _opened(self) -> VideoReader:
        if self._reader is None:
            self._reader = open_isolated_video(self._path)
        elif self._begun:
            self._reader.rewind()
        self._begun = True
        return self._reader

    def _interrupt(self) -> None:
        if (reader := self._reader) is not None:
            reader.interrupt()

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class MotionPlayer(_Player):
    """Player of a motion file."""

    driver: Driver = "template"

    def __init__(self, clip: MotionClip, session: Session, *, loop: bool) -> None:
        super().__init__(session, loop=loop)
        self._clip = clip
        self.fps, self.duration_s = round(float(clip.fps), 3), round(clip.duration_s, 3)

    def discard(self) -> None:
        """Do nothing: the motion is in memory."""

    def _frames(self) -> Iterator[tuple[float, float, Content]]:
        clip = self._clip
        ends = [*clip.times_s[1:], clip.duration_s]
        for place, (time_s, end_s) in enumerate(zip(clip.times_s, ends, strict=True)):
            yield float(time_s), float(end_s - time_s), clip.motion[place : place + 1]
